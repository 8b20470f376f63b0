select
    patient_num,
    coalesce(guarantor_patient_num, patient_num) as guarantor_patient_num,
    coalesce(guarantor_patient_num, patient_num) = patient_num as is_guarantor,
    clinic_num,
    primary_provider_num,

    patient_status,
    patient_status in ('Patient', 'Inactive', 'Archived') as is_patient,
    patient_status = 'Patient' and deceased_at is null as is_active,
    gender,
    marital_status,
    birth_date,
    extract(year from birth_date)::integer as birth_year,
    -- As of now: a view may say so, a table built from it may not keep it.
    extract(year from age(coalesce(deceased_at, current_date), birth_date))::integer as age,
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
    changed_at,
    _source_ts,
    _loaded_at
from {{ ref('stg_opendental__patient') }}
