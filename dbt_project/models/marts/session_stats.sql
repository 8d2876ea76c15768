{{ config(materialized='replace_range', meta={'day_column': 'event_date', 'neighbours': 1}) }}

with events as (

    select * from {{ ref('distinct_events') }}
    where event_date between {{ chunk_first_day(plus_days=-1) }} and {{ chunk_last_day(plus_days=1) }}

),

days_of_an_id as (

    select
        session_id,
        event_date,
        min(timestamp_ms) as first_ms,
        max(timestamp_ms) as last_ms,
        cast(count(*) as int) as event_count,
        cast(sum(copies) - count(*) as int) as duplicate_count,
        {{ counts_by_action() }}
    from events
    group by session_id, event_date

),

with_neighbours as (

    select
        *,
        coalesce(lag(event_date) over (partition by session_id order by event_date) = event_date - 1, false) as has_day_before,
        case
            when lead(event_date) over (partition by session_id order by event_date) = event_date + 1
                then lead(event_count) over (partition by session_id order by event_date)
            else 0
        end as next_day_event_count
    from days_of_an_id

),

final as (

    select
        session_id,
        event_date,
        not has_day_before as starts_session,
        {{ ms_to_timestamp('first_ms') }} as first_event_at,
        {{ ms_to_timestamp('last_ms') }} as last_event_at,
        event_count,
        duplicate_count,
        {% for action in actions_in_order() -%}
        {{ action }}_count,
        {% endfor -%}
        case when has_day_before then next_day_event_count else 0 end as dropped_next_day_count
    from with_neighbours
    where event_date between {{ chunk_first_day() }} and {{ chunk_last_day() }}

)

select * from final
