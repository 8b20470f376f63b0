select
    appointment_num,
    patient_num,
    clinic_num,
    operatory_num,
    provider_num,
    hygienist_num,
    appointment_type_num,

    appointment_status,
    appointment_status in ('Scheduled', 'As soon as possible') as is_scheduled,
    appointment_status = 'Complete' as is_complete,
    appointment_status = 'Broken' as is_broken,
    appointment_status in ('Patient note', 'Patient note completed') as is_note,
    priority,
    is_new_patient,
    is_hygiene,
    procedures,

    entered_at,
    scheduled_at,
    scheduled_at::date as scheduled_on,
    length_minutes,
    scheduled_at + length_minutes * interval '1 minute' as scheduled_until,
    scheduled_at::date - entered_at::date as booked_days_ahead,

    arrived_at,
    seated_at,
    dismissed_at,
    {{ minutes_between('scheduled_at', 'arrived_at') }} as arrived_minutes_late,
    {{ minutes_between('arrived_at', 'seated_at') }} as waiting_minutes,
    {{ minutes_between('seated_at', 'dismissed_at') }} as chair_minutes,

    changed_at,
    _source_ts,
    _loaded_at
from {{ ref('stg_opendental__appointment') }}
