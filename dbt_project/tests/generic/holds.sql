{#- Every row meets every expression; null counts as a failure. -#}
{% test holds(model, expressions) %}
select *
from {{ model }}
where not coalesce(({{ expressions | join(') and (') }}), false)
{% endtest %}
