select
    treatment_num,
    procedure_num,
    patient_num,
    appointment_num,
    provider_num,
    clinic_num,

    procedure_code_num,
    procedure_code,
    procedure_description,
    is_hygiene,
    treatment_area,
    tooth_num,
    tooth_range,
    surface,

    treatment_status,
    treatment_status = 'Complete' as is_complete,
    treatment_status = 'Treatment planned' as is_planned,
    treatment_status = 'Deleted' as is_deleted,
    place_of_service,

    planned_on,
    treated_on,
    completed_on,
    began_at,
    ended_at,
    treated_on - planned_on as planned_days_ahead,

    unit_fee,
    units,
    unit_fee * units as fee,
    discount,
    tax,
    case when treatment_status = 'Complete' then unit_fee * units else 0 end as production,

    raw_table,
    changed_at,
    _source_ts,
    _loaded_at,
    _versions
from {{ ref('stg_opendental__treatment') }}
