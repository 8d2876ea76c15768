{#- No two rows share all of `columns`. Rows are told apart by a hash first, so that memory holds eight bytes a row and not its text;
    only those whose hashes meet are compared. The table is read twice: kept as one step, its text would be in memory after all. -#}
{% test unique_grain(model, columns) %}
{%- set row_hash = 'hash(' ~ columns | join(', ') ~ ')' -%}
select {{ columns | join(', ') }}, count(*) as row_count
from {{ model }}
where {{ row_hash }} in (
    select {{ row_hash }} as row_hash
    from {{ model }}
    group by row_hash
    having count(*) > 1
)
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
