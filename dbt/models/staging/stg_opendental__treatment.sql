{#-
  A treatment is a procedure with its code. OpenDental has no table `treatment`; where a practice
  has one of its own, that is read, and `procedurelog` otherwise. Both give the same columns.
-#}
{%- set treatment = source('opendental_raw', 'treatment') -%}
{%- set procedurelog = source('opendental_raw', 'procedurelog') -%}
{%- set procedurecode = source('opendental_raw', 'procedurecode') -%}
{%- set from_treatment = in_raw(treatment) -%}
{%- set has_procedures = in_raw(procedurelog) or not from_treatment -%}
{%- set has_codes = has_procedures and in_raw(procedurecode) -%}
{%- set of_treatment = raw_columns(treatment) if from_treatment else {} -%}
{%- set of_procedure = raw_columns(procedurelog) if has_procedures else {} -%}
{%- set of_code = raw_columns(procedurecode) if has_codes else {} -%}

{#- The row that a treatment is: its alias and columns, and the names that differ. -#}
{%- if from_treatment -%}
    {%- set row, held = 't', of_treatment -%}
    {%- set names = {'key': 'TreatmentNum', 'date': 'TreatmentDate', 'status': 'TreatmentStatus',
                     'fee': 'Fee'} -%}
{%- else -%}
    {%- set row, held = 'p', of_procedure -%}
    {%- set names = {'key': 'ProcNum', 'date': 'ProcDate', 'status': 'ProcStatus',
                     'fee': 'ProcFee'} -%}
{%- endif -%}
{%- set status = raw_column(held, row, names['status'], 'integer') -%}
{%- set place = raw_column(of_procedure, 'p', 'PlaceService', 'integer') -%}
{%- set area = raw_column(of_code, 'c', 'TreatArea', 'integer') -%}
{%- set units = raw_column(of_procedure, 'p', 'UnitQty', 'integer') -%}
{%- set base_units = raw_column(of_procedure, 'p', 'BaseUnits', 'integer') %}

select
    {{ raw_key(held, row, names['key']) }} as treatment_num,
    {{ raw_reference(held, row, 'ProcNum') }} as procedure_num,
    {{ raw_reference(held, row, 'PatNum') }} as patient_num,
    {{ raw_reference(held, row, 'AptNum') }} as appointment_num,
    {{ raw_reference(held, row, 'ProvNum') }} as provider_num,
    {{ raw_reference(of_procedure, 'p', 'ClinicNum') }} as clinic_num,

    {{ raw_reference(of_procedure, 'p', 'CodeNum') }} as procedure_code_num,
    {{ none_text(raw_column(of_code, 'c', 'ProcCode', 'text')) }} as procedure_code,
    {{ none_text(raw_column(of_code, 'c', 'Descript', 'text')) }} as procedure_description,
    {{ yes(raw_column(of_code, 'c', 'IsHygiene', 'integer')) }} as is_hygiene,
    {{ area }} as treatment_area_code,
    {{ meaning('treatment_area') }} as treatment_area,

    {{ status }} as treatment_status_code,
    {{ meaning('treatment_status') }} as treatment_status,
    {{ place }} as place_of_service_code,
    {{ meaning('place_of_service') }} as place_of_service,
    {{ none_text(raw_column(held, row, 'ToothNum', 'text')) }} as tooth_num,
    {{ none_text(raw_column(of_procedure, 'p', 'ToothRange', 'text')) }} as tooth_range,
    {{ none_text(raw_column(of_procedure, 'p', 'Surf', 'text')) }} as surface,

    {{ none_date(raw_column(held, row, names['date'], 'date')) }} as treated_on,
    {{ none_date(raw_column(of_procedure, 'p', 'DateTP', 'date')) }} as planned_on,
    {{ none_date(raw_column(of_procedure, 'p', 'DateComplete', 'date')) }} as completed_on,
    {{ none_time(raw_column(of_procedure, 'p', 'ProcTime', 'interval')) }} as began_at,
    {{ none_time(raw_column(of_procedure, 'p', 'ProcTimeEnd', 'interval')) }} as ended_at,

    {{ raw_column(held, row, names['fee'], 'double precision') }} as unit_fee,
    -- As OpenDental counts: base units and units together, at least one.
    greatest(1, coalesce({{ units }}, 0)::bigint + coalesce({{ base_units }}, 0)) as units,
    {{ raw_column(of_procedure, 'p', 'Discount', 'double precision') }} as discount,
    {{ raw_column(of_procedure, 'p', 'TaxAmt', 'double precision') }} as tax,

    {{ raw_column(held, row, 'DateTStamp', 'timestamptz') }} as changed_at,
    '{{ 'treatment' if from_treatment else 'procedurelog' }}'::text as raw_table,
    {{ row }}._source_ts,
    {{ loaded_at(row) }} as _loaded_at,
    -- Of every row that went into this one: it changes when any of them does.
    array[
        {{ loaded_at(row) }}
        {%- if from_treatment and has_procedures %}, p._loaded_at{% endif %}
        {%- if has_codes %}, c._loaded_at{% endif %}
    ] as _versions
from {{ treatment if from_treatment else procedurelog }} as {{ row }}
{%- if from_treatment and has_procedures %}
left join {{ procedurelog }} as p
    on p."ProcNum" = {{ raw_reference(of_treatment, 't', 'ProcNum') }}
    and {{ only_live(of_procedure, 'p') }}
{%- endif %}
{%- if has_codes %}
left join {{ procedurecode }} as c
    on c."CodeNum" = {{ raw_reference(of_procedure, 'p', 'CodeNum') }}
    and {{ only_live(of_code, 'c') }}
{%- endif %}
{{ join_codes('treatment_status', 'ProcStatus', status) }}
{{ join_codes('place_of_service', 'PlaceService', place) }}
{{ join_codes('treatment_area', 'TreatArea', area) }}
where {{ only_live(held, row) }}
