"""The tables of a practice, named and typed as OpenDental has them, in a notation of our own.

From the left come a table's name and an engine; to the right goes its CREATE
TABLE. OpenDental has no table `treatment`: ours is small and invented, because
analysts ask for one by that name. Of OpenDental's many secondary indexes a few
stand here, enough to make writes cost what they cost.

Notation: names in column order; a name without a colon has the type of the next
one that has it. `key` bigint AUTO_INCREMENT PRIMARY KEY; b bigint, i int,
s smallint, su unsigned smallint, t tinyint, tu unsigned tinyint, t1 tinyint(1);
r double, f float; d date, dt datetime, ts timestamp, tm time; x text,
v20 varchar(20), c2 char(2). Then `!` binary collation, `?` nullable, `=` default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pymysql
from pymysql.cursors import Cursor

_TABLES = {
    "patient": """
        PatNum:key LName FName MiddleI Preferred:v100? PatStatus Gender Position:tu
        Birthdate:d SSN Address Address2 City State Zip:v100? HmPhone WkPhone
        WirelessPhone:v30? Guarantor:b CreditType:c1? Email Salutation:v100? EstBalance:r
        PriProv SecProv FeeSched BillingType:b ImageFolder:v100? AddrNote FamFinUrgNote:x?
        MedUrgNote ApptModNote:v255? StudentStatus:c1? SchoolName:v255 ChartNumber:v100
        MedicaidID:v20? Bal_0_30 Bal_31_60 Bal_61_90 BalOver90 InsEst BalTotal:r
        EmployerNum:b EmploymentNote County:v255? GradeLevel Urgency:t DateFirstVisit:d
        ClinicNum:b HasIns TrophyFolder:v255? PlannedIsDone Premed:tu Ward:v255?
        PreferConfirmMethod PreferContactMethod PreferRecallMethod:tu SchedBeforeTime
        SchedAfterTime:tm? SchedDayOfWeek:tu Language:v100? AdmitDate:d Title:v15?
        PayPlanDue:r SiteNum:b DateTStamp:ts ResponsParty:b CanadianEligibilityCode:t
        AskToArriveEarly:i PreferContactConfidential:t SuperFamily:b TxtMsgOk:t
        SmokingSnoMed:v32 Country:v255 DateTimeDeceased:dt BillingCycleDay:i=1
        SecUserNumEntry:b SecDateEntry:d HasSuperBilling:t PatNumCloneFrom DiscountPlanNum:b
        HasSignedTil ShortCodeOptIn:t SecurityHash:v255
    """,
    "provider": """
        ProvNum:key Abbr:v255? ItemOrder:su LName FName MI Suffix:v100? FeeSched Specialty:b
        SSN:v12? StateLicense DEANum:v15? IsSecondary:tu ProvColor:i IsHidden UsingTIN:tu
        BlueCrossID:v25? SigOnFile:tu=1 MedicaidID:v20? OutlineColor:i SchoolClassNum:b
        NationalProvID:v255? CanadianOfficeNum:v100? DateTStamp:ts AnesthProvType:b
        TaxonomyCodeOverride:v255 IsCDAnet:t EcwID StateRxID:v255 IsNotPerson:t
        StateWhereLicensed:v50 EmailAddressNum:b IsInstructor:t EhrMuStage:i
        ProvNumBillingOverride:b CustomID:v255 ProvStatus IsHiddenReport IsErxEnabled:t
        Birthdate:d SchedNote:v255 WebSchedDescript:v500 WebSchedImageLocation:v255
        HourlyProdGoalAmt:r DateTerm:d PreferredName:v100
    """,
    "appointment": """
        AptNum:key PatNum:b AptStatus:tu Pattern:v255? Confirmed:b TimeLocked:t1 Op:b
        Note:x? ProvNum ProvHyg:b AptDateTime:dt NextAptNum UnschedStatus:b IsNewPatient:tu
        ProcDescript:x? Assistant ClinicNum:b IsHygiene:tu DateTStamp:ts DateTimeArrived
        DateTimeSeated DateTimeDismissed:dt InsPlan1 InsPlan2:b DateTimeAskedToArrive:dt
        ProcsColored:x ColorOverride:i AppointmentTypeNum SecUserNumEntry:b SecDateTEntry:dt
        Priority:t ProvBarText:v60 PatternSecondary SecurityHash:v255 ItemOrderPlanned:i
        IsMirrored:t
    """,
    "histappointment": """
        HistApptNum:key HistUserNum:b HistDateTStamp:dt HistApptAction ApptSource:t AptNum
        PatNum:b AptStatus:t Pattern:v255 Confirmed:b TimeLocked:t Op:b Note:x ProvNum
        ProvHyg:b AptDateTime:dt NextAptNum UnschedStatus:b IsNewPatient:t ProcDescript:x
        Assistant ClinicNum:b IsHygiene:t DateTStamp:ts DateTimeArrived DateTimeSeated
        DateTimeDismissed:dt InsPlan1 InsPlan2:b DateTimeAskedToArrive:dt ProcsColored:x
        ColorOverride:i AppointmentTypeNum SecUserNumEntry:b SecDateTEntry:dt Priority:t
        ProvBarText:v60 PatternSecondary SecurityHash:v255 ItemOrderPlanned:i IsMirrored:t
    """,
    "procedurelog": """
        ProcNum:key PatNum AptNum:b OldCode:v15! ProcDate:d ProcFee:r Surf:v10? ToothNum:v2?
        ToothRange:v100? Priority:b ProcStatus:tu ProvNum Dx PlannedAptNum:b PlaceService:tu
        Prosthesis:c1? DateOriginalProsth:d ClaimNote:v80? DateEntryC:d ClinicNum:b
        MedicalCode:v15!? DiagnosticCode:v255? IsPrincDiag:tu ProcNumLab BillingTypeOne
        BillingTypeTwo CodeNum:b CodeMod1 CodeMod2 CodeMod3 CodeMod4:c2? RevCode:v45?
        UnitQty BaseUnits StartTime StopTime:i DateTP:d SiteNum:b HideGraphics:t
        CanadianTypeCodes:v20 ProcTime ProcTimeEnd:tm DateTStamp:ts Prognosis:b DrugUnit:t
        DrugQty:f UnitQtyType:t StatementNum:b IsLocked:t BillingNote:v255 RepeatChargeNum:b
        SnomedBodySite DiagnosticCode2 DiagnosticCode3 DiagnosticCode4:v255
        ProvOrderOverride:b Discount:r IsDateProsthEst:t IcdVersion:tu IsCpoe:t
        SecUserNumEntry:b SecDateEntry:dt DateComplete:d OrderingReferralNum:b TaxAmt:r
        Urgency:t DiscountPlanAmt:r
    """,
    "procedurecode": """
        CodeNum:key ProcCode:v15! Descript:v255? AbbrDesc:v50? ProcTime:v24? ProcCat:b
        TreatArea NoBillIns IsProsth:tu DefaultNote:x? IsHygiene:tu GTypeNum:su
        AlternateCode1:v15? MedicalCode:v15!? IsTaxed:tu PaintType:t GraphicColor:i
        LaymanTerm:v255? IsCanadianLab:tu PreExisting:t1 BaseUnits:i SubstitutionCode:v25?
        SubstOnlyIf:i DateTStamp:ts IsMultiVisit:t DrugNDC RevenueCodeDefault:v255
        ProvNumDefault:b CanadaTimeUnits:r IsRadiology:t DefaultClaimNote DefaultTPNote:x
        BypassGlobalLock:t TaxCode:v16 PaintText:v255 AreaAlsoToothRange:t
        DiagnosticCodes:v255
    """,
    "claim": """
        ClaimNum:key PatNum:b DateService DateSent:d ClaimStatus:c1? DateReceived:d PlanNum
        ProvTreat:b ClaimFee InsPayEst InsPayAmt DedApplied:r PreAuthString:v40?
        IsProsthesis:c1? PriorDate:d ReasonUnderPaid:v255? ClaimNote:v400? ClaimType:v255?
        ProvBill ReferringProv:b RefNumString:v40? PlaceService:tu AccidentRelated:c1?
        AccidentDate:d AccidentST:v2? EmployRelated IsOrtho OrthoRemainM:tu OrthoDate:d
        PatRelat:tu PlanNum2:b PatRelat2:tu WriteOff:r Radiographs:tu ClinicNum ClaimForm:b
        AttachedImages AttachedModels:i AttachedFlags AttachmentID:v255?
        CanadianMaterialsForwarded:v10 CanadianReferralProviderNum:v20
        CanadianReferralReason:t CanadianIsInitialLower:v5 CanadianDateInitialLower:d
        CanadianMandProsthMaterial:t CanadianIsInitialUpper:v5 CanadianDateInitialUpper:d
        CanadianMaxProsthMaterial:t InsSubNum InsSubNum2:b CanadaTransRefNum:v255
        CanadaEstTreatStartDate:d CanadaInitialPayment:r CanadaPaymentMode
        CanadaTreatDuration CanadaNumAnticipatedPayments:tu CanadaAnticipatedPayAmount:r
        PriorAuthorizationNumber:v255 SpecialProgramCode:t UniformBillType:v255 MedType:t
        AdmissionTypeCode AdmissionSourceCode PatientStatusCode:v255 CustomTracking:b
        DateResent:d CorrectionType:t ClaimIdentifier OrigRefNum:v255 ProvOrderOverride:b
        OrthoTotalM:tu ShareOfCost:r SecUserNumEntry:b SecDateEntry:d SecDateTEdit:ts
        OrderingReferralNum:b DateSentOrig DateIllnessInjuryPreg:d
        DateIllnessInjuryPregQualifier:s DateOther:d DateOtherQualifier:s IsOutsideLab:t
        SecurityHash:v255 Narrative:x
    """,
    "claimproc": """
        ClaimProcNum:key ProcNum ClaimNum PatNum ProvNum:b FeeBilled InsPayEst DedApplied:r
        Status:tu InsPayAmt:r Remarks:v255? ClaimPaymentNum PlanNum:b DateCP:d WriteOff:r
        CodeSent:v15? AllowedOverride:r Percentage PercentOverride:t=-1 CopayAmt:r=-1
        NoBillIns:tu PaidOtherIns:r=-1 BaseEst:r CopayOverride:r=-1 ProcDate DateEntry:d
        LineNumber:tu DedEst DedEstOverride InsEstTotal InsEstTotalOverride
        PaidOtherInsOverride:r EstimateNote:v255 WriteOffEst WriteOffEstOverride:r ClinicNum
        InsSubNum:b PaymentRow:i PayPlanNum ClaimPaymentTracking SecUserNumEntry:b
        SecDateEntry:d SecDateTEdit:ts DateSuppReceived DateInsFinalized:d IsTransfer:t
        ClaimAdjReasonCodes:v255 IsOverpay:t SecurityHash:v255
    """,
    "payment": """
        PayNum:key PayType:b PayDate:d PayAmt:r CheckNum BankBranch:v25? PayNote:x
        IsSplit:tu PatNum ClinicNum:b DateEntry:d DepositNum:b Receipt:x IsRecurringCC:t
        SecUserNumEntry:b SecDateTEdit:ts PaymentSource ProcessStatus:t
        RecurringChargeDate:d ExternalId:v255 PaymentStatus IsCcCompleted:t MerchantFee:r
    """,
    "paysplit": """
        SplitNum:key SplitAmt:r PatNum:b ProcDate:d PayNum:b IsDiscount DiscountType:tu
        ProvNum PayPlanNum:b DatePay:d ProcNum:b DateEntry:d UnearnedType ClinicNum
        SecUserNumEntry:b SecDateTEdit:ts FSplitNum AdjNum PayPlanChargeNum:b
        PayPlanDebitType:t SecurityHash:v255
    """,
    "adjustment": """
        AdjNum:key AdjDate:d AdjAmt:r PatNum AdjType ProvNum:b AdjNote:x? ProcDate:d
        ProcNum:b DateEntry:d ClinicNum StatementNum SecUserNumEntry:b SecDateTEdit:ts
        TaxTransID:b
    """,
    "securitylog": """
        SecurityLogNum:key PermType:s UserNum:b LogDateTime:dt LogText:x? PatNum:b
        CompName:v255 FKey:b LogSource:t DefNum DefNumError:b DateTPrevious:dt
    """,
    "sheetfield": """
        SheetFieldNum:key SheetNum:b FieldType:i FieldName:v255? FieldValue:x? FontSize:f
        FontName:v255? FontIsBold:t XPos YPos Width Height GrowthBehavior:i RadioButtonValue
        RadioButtonGroup:v255 IsRequired:t TabOrder:i ReportableName:v255? TextAlign:t
        ItemColor:i=-16777216 DateTimeSig:dt IsLocked:t TabOrderMobile:i UiLabelMobile
        UiLabelMobileRadioButton:x SheetFieldDefNum:b CanElectronicallySign
        IsSigProvRestricted:t UserSigned:b
    """,
    "commlog": """
        CommlogNum:key PatNum:b CommDateTime:dt CommType:b Note:x? Mode_ SentOrReceived:tu
        UserNum:b Signature:x SigIsTopaz:t DateTStamp:ts DateTimeEnd:dt CommSource:t?
        ProgramNum:b DateTEntry:dt ReferralNum:b CommReferralBehavior:t
    """,
    "clockevent": """
        ClockEventNum:key EmployeeNum:b TimeEntered1 TimeDisplayed1:dt ClockStatus:tu
        Note:x? TimeEntered2 TimeDisplayed2:dt OTimeHours OTimeAuto Adjust AdjustAuto:tm
        AdjustIsOverridden:t Rate2Hours Rate2Auto:tm ClinicNum:b Rate3Hours Rate3Auto:tm
        IsWorkingHome:t
    """,
    "signalod": """
        SignalNum:key DateViewing:d SigDateTime:dt FKey:b FKeyType:v255 IType RemoteRole:t
        MsgValue:x
    """,
    "famaging": """
        PatNum:key Bal_0_30 Bal_31_60 Bal_61_90 BalOver90 InsEst BalTotal PayPlanDue:r
    """,
    "definition": """
        DefNum:key Category:tu ItemOrder:su ItemName ItemValue:v255? ItemColor:i IsHidden:tu
    """,
    "preference": """
        PrefName:v255 ValueString:x PrefNum:key Comments:x?
    """,
    "treatment": """
        TreatmentNum:key PatNum ProvNum AptNum ProcNum:b TreatmentDate:d TreatmentStatus:tu
        ToothNum:v2? Fee:r DiscountShare:f Note:x? PlannedStart:tm? DateTStamp:ts
    """,
}
_INDEXES = {
    "patient": ("LName(10)", "LName, FName", "Guarantor", "Birthdate, PatStatus"),
    "provider": ("Abbr", "FeeSched"),
    "appointment": ("PatNum", "AptDateTime", "AptStatus, AptDateTime, ClinicNum", "DateTStamp"),
    "histappointment": ("AptNum", "PatNum", "HistDateTStamp"),
    "procedurelog": (
        "PatNum, ProcStatus, ClinicNum",
        "ProvNum, ProcDate",
        "AptNum, CodeNum",
        "DateTStamp, PatNum",
    ),
    "procedurecode": ("ProcCode",),
    "claim": ("PlanNum", "PatNum, ClaimStatus"),
    "claimproc": ("PatNum", "ClaimNum", "ProcNum", "SecDateTEdit, PatNum"),
    "payment": ("PatNum", "PayType"),
    "paysplit": ("PatNum", "PayNum", "ProcNum, SplitAmt", "SecDateTEdit, PatNum"),
    "adjustment": ("PatNum", "ProcNum, AdjAmt"),
    "securitylog": ("PatNum", "LogDateTime", "PermType"),
    "sheetfield": ("SheetNum, FieldType",),
    "commlog": ("PatNum, CommDateTime, CommType",),
    "clockevent": ("TimeDisplayed1", "EmployeeNum"),
    "signalod": ("SigDateTime", "IType"),
    "preference": ("PrefName",),
    "treatment": ("PatNum", "AptNum"),
}

_TYPES = {
    "key": "bigint(20)",
    "b": "bigint(20)",
    "i": "int(11)",
    "s": "smallint(6)",
    "su": "smallint(5) unsigned",
    "t": "tinyint(4)",
    "tu": "tinyint(3) unsigned",
    "t1": "tinyint(1)",
    "r": "double",
    "f": "float",
    "d": "date",
    "dt": "datetime",
    "ts": "timestamp",
    "tm": "time",
    "x": "text",
}
_IMPLIED_DEFAULTS = {
    "d": "'0001-01-01'",
    "dt": "'0001-01-01 00:00:00'",
    "ts": "current_timestamp() ON UPDATE current_timestamp()",
}
_TOKEN = re.compile(r"(\w+):([a-z]+)(\d*)(!?)(\??)(?:=(-?\d+))?")


@dataclass(frozen=True, slots=True)
class Column:
    """`code` is the notation's letter(s); `length` counts characters, 0 where it has no meaning."""

    name: str
    code: str
    length: int
    binary: bool
    nullable: bool
    default: str | None

    @property
    def type(self) -> str:
        """The type as SHOW CREATE TABLE would print it, without charset."""
        if self.code in "vc":
            return f"{'varchar' if self.code == 'v' else 'char'}({self.length})"
        return _TYPES[self.code]

    @property
    def definition(self) -> str:
        """The column's line in CREATE TABLE."""
        words = [f"`{self.name}`", self.type]
        if self.binary:
            words.append("CHARACTER SET utf8mb3 COLLATE utf8mb3_bin")
        words.append("DEFAULT NULL" if self.nullable else "NOT NULL")
        if self.code == "key":
            words.append("AUTO_INCREMENT")
        elif self.default is not None:
            words.append(f"DEFAULT {self.default}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    indexes: tuple[str, ...]

    @property
    def key(self) -> str:
        """The primary key column's name; every table here has one of one column."""
        return self.columns[self.key_index].name

    @property
    def key_index(self) -> int:
        return next(i for i, column in enumerate(self.columns) if column.code == "key")

    def ddl(self, engine: str = "MyISAM") -> str:
        """CREATE TABLE with OpenDental's engine, or InnoDB."""
        lines = [column.definition for column in self.columns]
        lines.append(f"PRIMARY KEY (`{self.key}`)")
        lines += [f"KEY `index{i}` ({columns})" for i, columns in enumerate(self.indexes, 1)]
        body = ",\n  ".join(lines)
        return f"CREATE TABLE `{self.name}` (\n  {body}\n) ENGINE={engine} DEFAULT CHARSET=utf8mb3"


def _parse(name: str, notation: str) -> Table:
    """Read one table's notation, from the right so that each type reaches back over its run."""
    columns: list[Column] = []
    code = ""
    for word in reversed(notation.split()):
        column, colon, own = word.partition(":")
        code = own if colon else code
        columns.append(_column(f"{column}:{code}"))
    return Table(name, tuple(reversed(columns)), _INDEXES.get(name, ()))


def _column(token: str) -> Column:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError(f"not in the notation: {token}")
    name, letters, digits, binary, nullable, default = match.groups()
    code, length = (letters, int(digits)) if letters in "vc" else (letters + digits, 0)
    implied = None if nullable else _IMPLIED_DEFAULTS.get(code)
    chosen = f"'{default}'" if default is not None else implied
    return Column(name, code, length, bool(binary), bool(nullable), chosen)


TABLES: dict[str, Table] = {name: _parse(name, notation) for name, notation in _TABLES.items()}


def create_tables(connection: pymysql.Connection[Cursor], engine: str = "MyISAM") -> None:
    """Create every table in the connection's current database."""
    with connection.cursor() as cursor:
        for table in TABLES.values():
            cursor.execute(table.ddl(engine))
