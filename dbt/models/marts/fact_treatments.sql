{{ config(
    unique_key='treatment_num',
    indexes=[
        {'columns': ['treatment_num'], 'unique': True},
        {'columns': ['patient_num']},
        {'columns': ['treated_on']},
    ],
) }}

{%- set present %}
    select
        t.treatment_num,
        t.procedure_num,
        coalesce(p.patient_num, '0') as patient_num,
        t.patient_num as opendental_patient_num,
        a.appointment_num,
        t.appointment_num as opendental_appointment_num,
        t.provider_num,
        t.clinic_num,
        t.procedure_code_num,
        t.procedure_code,
        t.procedure_description,
        t.is_hygiene,
        t.treatment_area,
        t.tooth_num,
        t.tooth_range,
        t.surface,
        t.treatment_status,
        t.is_complete,
        t.is_planned,
        t.is_deleted,
        t.place_of_service,
        t.planned_on,
        t.treated_on,
        t.completed_on,
        t.began_at,
        t.ended_at,
        t.planned_days_ahead,
        t.unit_fee,
        t.units,
        t.fee,
        t.discount,
        t.tax,
        t.production,
        t.raw_table,
        t._source_ts,
        t._loaded_at,
        t._versions
    from {{ ref('int_treatment_history') }} as t
    left join {{ ref('dim_patient') }} as p on p.patient_num = t.patient_num
    left join {{ ref('fact_appointments') }} as a on a.appointment_num = t.appointment_num
{%- endset %}

{{ mirror(
    present,
    key='treatment_num',
    versions=['_versions', 'raw_table', 'patient_num', 'appointment_num'],
) }}
