{%- set patient = source('opendental_raw', 'patient') -%}
{%- set held = raw_columns(patient) -%}

select
    {{ raw_key(held, 'p', 'PatNum') }} as patient_num,
    {{ raw_reference(held, 'p', 'Guarantor') }} as guarantor_patient_num,
    {{ raw_reference(held, 'p', 'ClinicNum') }} as clinic_num,
    {{ raw_reference(held, 'p', 'PriProv') }} as primary_provider_num,
    {{ raw_reference(held, 'p', 'SecProv') }} as secondary_provider_num,
    {{ raw_reference(held, 'p', 'FeeSched') }} as fee_schedule_num,

    {{ none_text(raw_column(held, 'p', 'LName', 'text')) }} as last_name,
    {{ none_text(raw_column(held, 'p', 'FName', 'text')) }} as first_name,
    {{ none_text(raw_column(held, 'p', 'MiddleI', 'text')) }} as middle_name,
    {{ none_text(raw_column(held, 'p', 'Preferred', 'text')) }} as preferred_name,
    {{ none_date(raw_column(held, 'p', 'Birthdate', 'date')) }} as birth_date,
    {{ none_datetime(raw_column(held, 'p', 'DateTimeDeceased', 'timestamp')) }} as deceased_at,

    {{ raw_column(held, 'p', 'PatStatus', 'integer') }} as patient_status_code,
    {{ meaning('patient_status') }} as patient_status,
    {{ raw_column(held, 'p', 'Gender', 'integer') }} as gender_code,
    {{ meaning('gender') }} as gender,
    {{ raw_column(held, 'p', 'Position', 'integer') }} as marital_status_code,
    {{ meaning('marital_status') }} as marital_status,

    {{ none_text(raw_column(held, 'p', 'Address', 'text')) }} as address,
    {{ none_text(raw_column(held, 'p', 'Address2', 'text')) }} as address_2,
    {{ none_text(raw_column(held, 'p', 'City', 'text')) }} as city,
    {{ none_text(raw_column(held, 'p', 'State', 'text')) }} as state,
    {{ none_text(raw_column(held, 'p', 'Zip', 'text')) }} as zip,
    {{ none_text(raw_column(held, 'p', 'Country', 'text')) }} as country,
    {{ none_text(raw_column(held, 'p', 'HmPhone', 'text')) }} as home_phone,
    {{ none_text(raw_column(held, 'p', 'WkPhone', 'text')) }} as work_phone,
    {{ none_text(raw_column(held, 'p', 'WirelessPhone', 'text')) }} as mobile_phone,
    {{ none_text(raw_column(held, 'p', 'Email', 'text')) }} as email,
    {{ none_text(raw_column(held, 'p', 'Language', 'text')) }} as language,
    {{ raw_column(held, 'p', 'PreferContactMethod', 'integer') }} as preferred_contact_code,
    {{ meaning('preferred_contact') }} as preferred_contact,
    {{ raw_column(held, 'p', 'TxtMsgOk', 'integer') }} as texting_allowed_code,
    {{ meaning('texting_allowed') }} as texting_allowed,

    {{ none_time(raw_column(held, 'p', 'SchedBeforeTime', 'interval')) }} as schedule_before,
    {{ none_time(raw_column(held, 'p', 'SchedAfterTime', 'interval')) }} as schedule_after,
    {{ none_date(raw_column(held, 'p', 'DateFirstVisit', 'date')) }} as first_visit_on,
    {{ none_date(raw_column(held, 'p', 'AdmitDate', 'date')) }} as admitted_on,
    {{ none_date(raw_column(held, 'p', 'SecDateEntry', 'date')) }} as entered_on,

    {{ raw_column(held, 'p', 'EstBalance', 'double precision') }} as estimated_balance,
    {{ raw_column(held, 'p', 'BalTotal', 'double precision') }} as family_balance,
    {{ raw_column(held, 'p', 'InsEst', 'double precision') }} as family_insurance_estimate,

    {{ raw_column(held, 'p', 'DateTStamp', 'timestamptz') }} as changed_at,
    p._source_ts,
    {{ loaded_at('p') }} as _loaded_at
from {{ patient }} as p
{{ join_codes('patient_status', 'PatStatus', raw_column(held, 'p', 'PatStatus', 'integer')) }}
{{ join_codes('gender', 'Gender', raw_column(held, 'p', 'Gender', 'integer')) }}
{{ join_codes('marital_status', 'Position', raw_column(held, 'p', 'Position', 'integer')) }}
{{ join_codes('preferred_contact', 'ContactMethod',
    raw_column(held, 'p', 'PreferContactMethod', 'integer')) }}
{{ join_codes('texting_allowed', 'TxtMsgOk', raw_column(held, 'p', 'TxtMsgOk', 'integer')) }}
where {{ only_live(held, 'p') }}
