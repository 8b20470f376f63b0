{{ config(
    unique_key='patient_num',
    indexes=[{'columns': ['patient_num'], 'unique': True}],
) }}

{%- set present %}
    select
        patient_num,
        guarantor_patient_num,
        is_guarantor,
        clinic_num,
        primary_provider_num,
        patient_status,
        is_patient,
        is_active,
        gender,
        marital_status,
        birth_date,
        birth_year,
        deceased_at,
        city,
        state,
        zip,
        country,
        language,
        preferred_contact,
        texting_allowed,
        first_visit_on,
        entered_on,
        estimated_balance,
        _source_ts,
        _loaded_at
    from {{ ref('int_patient_demographics') }}
    where patient_num <> '0'

    union all

    -- For facts whose patient is not there; see docs/dbt.md.
    select
        '0', '0', true, null, null, 'Unknown', false, false, 'Unknown', 'Unknown', null, null, null,
        null, null, null, null, null, 'Unknown', 'Unknown', null, null, null, null,
        'epoch'::timestamptz
{%- endset %}

{{ mirror(present, key='patient_num') }}
