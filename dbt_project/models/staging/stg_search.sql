with source as (

    select * from {{ source('raw', 'search_train') }}

),

final as (

    select
        session_id_hash as session_id,
        cast({{ ms_to_timestamp('server_timestamp_epoch_ms') }} as date) as event_date,
        server_timestamp_epoch_ms as timestamp_ms,
        clicked_skus_hash as clicked_skus,
        product_skus_hash as shown_skus,
        query_vector,
        event_id,
        request_id
    from source

)

select * from final
