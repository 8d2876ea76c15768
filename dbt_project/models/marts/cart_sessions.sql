{{ config(materialized='replace_range', meta={'day_column': 'session_date', 'neighbours': 1}) }}

with sessions as (

    select * from {{ ref('sessions') }}
    where
        add_count > 0
        and session_date between {{ chunk_first_day() }} and {{ chunk_last_day() }}

),

first_adds as (

    select
        *,
        cast({{ array_first_index('actions', "'add'") }} as int) as first_add_index
    from sessions

),

final as (

    select
        *,
        {{ array_contains_after('actions', "'purchase'", 'first_add_index') }} as bought
    from first_adds

)

select * from final
