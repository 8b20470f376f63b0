{%- set appointment = source('opendental_raw', 'appointment') -%}
{%- set held = raw_columns(appointment) -%}

select
    {{ raw_key(held, 'a', 'AptNum') }} as appointment_num,
    {{ raw_reference(held, 'a', 'PatNum') }} as patient_num,
    {{ raw_reference(held, 'a', 'ClinicNum') }} as clinic_num,
    {{ raw_reference(held, 'a', 'Op') }} as operatory_num,
    {{ raw_reference(held, 'a', 'ProvNum') }} as provider_num,
    {{ raw_reference(held, 'a', 'ProvHyg') }} as hygienist_num,
    {{ raw_reference(held, 'a', 'AppointmentTypeNum') }} as appointment_type_num,
    {{ raw_reference(held, 'a', 'Confirmed') }} as confirmed_definition_num,
    {{ raw_reference(held, 'a', 'NextAptNum') }} as planned_appointment_num,

    {{ raw_column(held, 'a', 'AptStatus', 'integer') }} as appointment_status_code,
    {{ meaning('appointment_status') }} as appointment_status,
    {{ raw_column(held, 'a', 'Priority', 'integer') }} as priority_code,
    {{ meaning('priority') }} as priority,
    {{ yes(raw_column(held, 'a', 'IsNewPatient', 'integer')) }} as is_new_patient,
    {{ yes(raw_column(held, 'a', 'IsHygiene', 'integer')) }} as is_hygiene,

    {{ none_datetime(raw_column(held, 'a', 'AptDateTime', 'timestamp')) }} as scheduled_at,
    -- One character for each five minutes.
    5 * length({{ raw_column(held, 'a', 'Pattern', 'text') }}) as length_minutes,
    {{ none_moment(raw_column(held, 'a', 'DateTimeAskedToArrive', 'timestamp')) }}
        as asked_to_arrive_at,
    {{ none_moment(raw_column(held, 'a', 'DateTimeArrived', 'timestamp')) }} as arrived_at,
    {{ none_moment(raw_column(held, 'a', 'DateTimeSeated', 'timestamp')) }} as seated_at,
    {{ none_moment(raw_column(held, 'a', 'DateTimeDismissed', 'timestamp')) }} as dismissed_at,
    {{ none_text(raw_column(held, 'a', 'ProcDescript', 'text')) }} as procedures,

    {{ none_datetime(raw_column(held, 'a', 'SecDateTEntry', 'timestamp')) }} as entered_at,
    {{ raw_column(held, 'a', 'DateTStamp', 'timestamptz') }} as changed_at,
    a._source_ts,
    {{ loaded_at('a') }} as _loaded_at
from {{ appointment }} as a
{{ join_codes('appointment_status', 'AptStatus', raw_column(held, 'a', 'AptStatus', 'integer')) }}
{{ join_codes('priority', 'AptPriority', raw_column(held, 'a', 'Priority', 'integer')) }}
where {{ only_live(held, 'a') }}
