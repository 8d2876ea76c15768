{{ config(materialized='replace_range', meta={'day_column': 'session_date', 'neighbours': 1}) }}

{% set event_order = ['timestamp_ms', 'event_order', 'sku'] %}

with events as (

    select * from {{ ref('distinct_events') }}
    where event_date between {{ chunk_first_day() }} and {{ chunk_last_day(plus_days=1) }}

),

days_of_an_id as (

    select * from {{ ref('session_stats') }}
    where event_date between {{ chunk_first_day() }} and {{ chunk_last_day(plus_days=1) }}

),

dated_events as (

    select
        events.session_id,
        case when days_of_an_id.starts_session then events.event_date else events.event_date - 1 end as session_date,
        days_of_an_id.starts_session,
        events.timestamp_ms,
        events.event_order,
        events.action,
        events.sku
    from events
    inner join days_of_an_id
        on events.session_id = days_of_an_id.session_id
        and events.event_date = days_of_an_id.event_date

),

grouped as (

    select
        session_id,
        session_date,
        min(timestamp_ms) as first_ms,
        max(timestamp_ms) as last_ms,
        {{ ordered_array('action', event_order, carry=['action']) }} as actions,
        {{ ordered_array('sku', event_order, carry=['action']) }} as skus,
        {{ ordered_array('timestamp_ms', event_order, carry=['action']) }} as timestamps_ms,
        cast(count(*) as int) as event_count,
        {% for action in ['view', 'detail', 'add', 'remove', 'purchase', 'search', 'click'] -%}
        cast(count(case when action = '{{ action }}' then 1 end) as int) as {{ action }}_count{{ ',' if not loop.last }}
        {% endfor %}
    from dated_events
    where session_date between {{ chunk_first_day() }} and {{ chunk_last_day() }}
    group by session_id, session_date
    -- what is left without its first day is an id's third consecutive day, or a later one: dropped, and counted in session_stats
    having count(case when starts_session then 1 end) > 0

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
        event_count,
        view_count,
        detail_count,
        add_count,
        remove_count,
        purchase_count,
        search_count,
        click_count
    from grouped

)

select * from final
