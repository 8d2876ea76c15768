{#- The rows of a staging view with `columns`, each event id once: of several rows that carry the same one (a shop sent again because
    the answer was lost) the first of the day is kept, and `copies` counts them. Rows of files have no event id and pass as they are:
    they are read apart from the others, so that nothing is sorted for them. -#}
{%- macro once_per_event_id(relation, condition, columns, order_by) -%}
    select {{ columns | join(', ') }}, 1 as copies
    from {{ relation }}
    where {{ condition }} and event_id is null
    union all
    select {{ columns | join(', ') }}, copies
    from (
        select
            {{ columns | join(', ') }},
            count(*) over (partition by event_date, event_id) as copies,
            row_number() over (partition by event_date, event_id order by {{ order_by | join(', ') }}) as place
        from {{ relation }}
        where {{ condition }} and event_id is not null
    ) as collected
    where place = 1
{%- endmacro -%}
