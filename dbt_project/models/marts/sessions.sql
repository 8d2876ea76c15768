{{ config(materialized='replace_range', meta={'day_column': 'session_date', 'neighbours': 1}) }}

{% set counts = [
    'event_count', 'view_count', 'detail_count', 'add_count', 'remove_count', 'purchase_count', 'search_count', 'click_count'
] %}

with events as (

    select * from {{ ref('distinct_events') }}
    where event_date between {{ chunk_first_day() }} and {{ chunk_last_day(plus_days=1) }}

),

days as (

    select session_id, event_date, starts_session from {{ ref('session_stats') }}
    where event_date between {{ chunk_first_day() }} and {{ chunk_last_day(plus_days=1) }}

),

first_days as (

    select * from days
    where starts_session

),

later_days as (

    -- few of all days, so that giving events their session costs little. A second day belongs to the session of the day before; an id's
    -- third consecutive day, or a later one, to none: dropped, and counted in session_stats
    select
        days.session_id,
        days.event_date,
        first_days.event_date as session_date
    from days
    left join first_days
        on days.session_id = first_days.session_id
        and first_days.event_date = days.event_date - 1
    where not days.starts_session

),

events_of_sessions as (

    select
        events.session_id,
        events.timestamp_ms,
        events.event_order,
        events.action,
        events.sku,
        case when later_days.session_id is null then events.event_date else later_days.session_date end as session_date
    from events
    left join later_days
        on events.session_id = later_days.session_id
        and events.event_date = later_days.event_date

),

sessions as (

    select
        session_id,
        session_date,
        min(timestamp_ms) as first_ms,
        max(timestamp_ms) as last_ms,
        {{ events_in_order('action') }} as actions,
        {{ events_in_order('sku') }} as skus,
        {{ events_in_order('timestamp_ms') }} as timestamps_ms,
        cast(count(*) as int) as event_count,
        {{ counts_by_action() }}
    from events_of_sessions
    where session_date between {{ chunk_first_day() }} and {{ chunk_last_day() }}
    group by session_id, session_date

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
