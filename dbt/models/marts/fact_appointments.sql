{{ config(
    unique_key='appointment_num',
    indexes=[
        {'columns': ['appointment_num'], 'unique': True},
        {'columns': ['patient_num']},
        {'columns': ['scheduled_on']},
    ],
) }}

{%- set present %}
    select
        a.appointment_num,
        coalesce(p.patient_num, '0') as patient_num,
        a.patient_num as opendental_patient_num,
        a.clinic_num,
        a.operatory_num,
        a.provider_num,
        a.hygienist_num,
        a.appointment_type_num,
        a.appointment_status,
        a.is_scheduled,
        a.is_complete,
        a.is_broken,
        a.is_note,
        a.priority,
        a.is_new_patient,
        a.is_hygiene,
        a.entered_at,
        a.scheduled_at,
        a.scheduled_on,
        a.scheduled_until,
        a.length_minutes,
        a.booked_days_ahead,
        a.arrived_at,
        a.seated_at,
        a.dismissed_at,
        a.arrived_minutes_late,
        a.waiting_minutes,
        a.chair_minutes,
        a._source_ts,
        a._loaded_at
    from {{ ref('int_appointment_scheduling') }} as a
    left join {{ ref('dim_patient') }} as p on p.patient_num = a.patient_num
{%- endset %}

{{ mirror(present, key='appointment_num', versions=['_loaded_at', 'patient_num']) }}
