{{ config(materialized='replace_range', meta={'day_column': 'session_date', 'neighbours': 1}) }}

{% set event_order = ['timestamp_ms', 'event_order', 'sku'] %}
{% set arrays = ['actions', 'skus', 'timestamps_ms'] %}
{% set counts = [
    'event_count', 'view_count', 'detail_count', 'add_count', 'remove_count', 'purchase_count', 'search_count', 'click_count'
] %}

with events as (

    select * from {{ ref('distinct_events') }}
    where event_date between {{ chunk_first_day() }} and {{ chunk_last_day(plus_days=1) }}

),

arrays_by_day as (

    select
        session_id,
        event_date,
        min(timestamp_ms) as first_ms,
        max(timestamp_ms) as last_ms,
        {{ ordered_array('action', event_order, carry=['action']) }} as actions,
        {{ ordered_array('sku', event_order, carry=['action']) }} as skus,
        {{ ordered_array('timestamp_ms', event_order, carry=['action']) }} as timestamps_ms
    from events
    group by session_id, event_date

),

days as (

    select
        arrays_by_day.*,
        stats.starts_session
        {%- for count in counts %},
        stats.{{ count }}
        {%- endfor %}
    from arrays_by_day
    inner join {{ ref('session_stats') }} as stats
        on arrays_by_day.session_id = stats.session_id
        and arrays_by_day.event_date = stats.event_date
    where stats.event_date between {{ chunk_first_day() }} and {{ chunk_last_day(plus_days=1) }}

),

first_days as (

    select * from days
    where starts_session and event_date <= {{ chunk_last_day() }}

),

second_days as (

    -- an id's third consecutive day, or a later one, has no first day before it: dropped, and counted in session_stats
    select * from days
    where not starts_session

),

sessions as (

    select
        first_days.session_id,
        first_days.event_date as session_date,
        first_days.first_ms,
        coalesce(second_days.last_ms, first_days.last_ms) as last_ms
        {%- for array in arrays %},
        {{ array_concat('first_days.' ~ array, 'second_days.' ~ array) }} as {{ array }}
        {%- endfor %}
        {%- for count in counts %},
        cast(first_days.{{ count }} + coalesce(second_days.{{ count }}, 0) as int) as {{ count }}
        {%- endfor %}
    from first_days
    left join second_days
        on first_days.session_id = second_days.session_id
        and first_days.event_date = second_days.event_date - 1

),

final as (

    select
        session_id,
        session_date,
        {{ ms_to_timestamp('first_ms') }} as started_at,
        {{ ms_to_timestamp('last_ms') }} as ended_at,
        cast(last_ms - first_ms as double) / 1000 as duration_s,
        actions,
        skus,
        timestamps_ms,
        {{ counts | join(',\n        ') }}
    from sessions

)

select * from final
