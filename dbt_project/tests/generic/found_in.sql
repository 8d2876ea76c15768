{#- Every row of the model has its row in `parent`, by all of `columns`. -#}
{% test found_in(model, parent, columns) %}
with child as (

    select * from {{ model }}

)

select child.*
from child
left join {{ parent }} as parent
    on {% for column in columns %}child.{{ column }} = parent.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
where parent.{{ columns[0] }} is null
{% endtest %}
