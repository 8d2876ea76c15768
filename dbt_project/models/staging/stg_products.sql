with source as (

    select * from {{ source('raw', 'sku_to_content') }}

),

final as (

    select
        product_sku_hash as sku,
        category_hash as category,
        cast(price_bucket as int) as price_bucket,
        description_vector,
        image_vector,
        file_number
    from source

)

select * from final
