{#- The tiebreak between events of one millisecond: a search comes before its clicks, looking before buying. Then SKU, then URL. -#}
{%- macro event_order(action) -%}
    cast(case {{ action }}
        {% for name in actions_in_order() -%}
        when '{{ name }}' then {{ loop.index }}
        {% endfor -%}
    end as smallint)
{%- endmacro -%}

{%- macro actions_in_order() -%}
    {{ return(['search', 'click', 'view', 'detail', 'add', 'remove', 'purchase']) }}
{%- endmacro -%}

{#- How many events of each action a group has: `search_count` and so on. -#}
{%- macro counts_by_action() -%}
    {%- for action in actions_in_order() -%}
        cast(count(case when event_order = {{ loop.index }} then 1 end) as int) as {{ action }}_count{{ ',\n        ' if not loop.last }}
    {%- endfor -%}
{%- endmacro -%}
