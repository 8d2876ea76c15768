{#- Before each model: what a session on Snowflake needs, whatever the user's own parameters are. Nothing on DuckDB. -#}
{%- macro begin_session() -%}
    {%- if target.type == 'snowflake' -%}
        alter session set timezone = 'UTC', statement_timeout_in_seconds = {{ env_var('DBT_SNOWFLAKE_STATEMENT_TIMEOUT_S', '3600') }}
    {%- endif -%}
{%- endmacro -%}
