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
