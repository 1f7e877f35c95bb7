//! Every reason used in conditions, Ticket statuses and Events. They are a contract:
//! `docs/conditions.md` says what to do about each, and a test checks it against this list.

use super::ticket::Phase;
use std::fmt;

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        /// A machine-readable reason, in CamelCase as the Kubernetes API conventions require.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($name),*
        }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name)),*
                }
            }
        }
    };
}

reasons! {
    APIServerUnavailable,
    Accepted,
    Active,
    AgentFailed,
    AgentRefused,
    ApprovalExpired,
    ApprovalMismatch,
    ApprovalNeeded,
    Approved,
    Archived,
    AttemptsExhausted,
    AwaitingApproval,
    CAInvalid,
    Claimed,
    ClientDraining,
    ClientImported,
    ClientInactive,
    ClientNotFound,
    ClientNotImported,
    ClientRemoved,
    ClientsNotFound,
    Closed,
    Completed,
    Connected,
    ConnectionNotFound,
    ConnectionNotReady,
    Deleted,
    Denied,
    Done,
    Draft,
    Duplicate,
    ExcessiveScopes,
    Failed,
    Forbidden,
    Found,
    HaloPSATimeout,
    HaloPSAUnavailable,
    HaloPSAUnreachable,
    Idle,
    Ignored,
    Invalid,
    InvalidConfiguration,
    InvalidCredentials,
    InvalidScope,
    InvalidStep,
    LeaseExpired,
    Messages,
    MissingScopes,
    Moved,
    NameTaken,
    NoAgent,
    NoProvider,
    NoTools,
    NotChecked,
    NotFound,
    NotVerified,
    OwnTicket,
    Pending,
    ProviderNotFound,
    ProviderNotReady,
    ProviderUnavailable,
    Provisioning,
    RateLimited,
    Ready,
    Received,
    ReferenceInvalid,
    Refused,
    Registered,
    Rejected,
    Released,
    Reopened,
    ReplyIgnored,
    Running,
    RunningSteps,
    SecretInvalid,
    Sensitive,
    SignedIn,
    StepsNotRun,
    StepsRun,
    Suspended,
    Synced,
    ToolsChanged,
    Unauthorized,
    UnexpectedResponse,
    Unreachable,
    Unreadable,
    Verification,
    VerificationExpired,
    VerificationOverridden,
    VerificationSkipped,
    Verified,
    Verifying,
    WebhookLeftBehind,
    WebhookRegistered,
    WebhookRemoved,
    WebhooksMissed,
    Working,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<Reason> for str {
    fn eq(&self, reason: &Reason) -> bool {
        self == reason.as_str()
    }
}

impl PartialEq<Reason> for String {
    fn eq(&self, reason: &Reason) -> bool {
        self == reason.as_str()
    }
}

/// The condition `Finished` uses the phase as its reason.
impl From<Phase> for Reason {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Received => Reason::Received,
            Phase::Verifying => Reason::Verifying,
            Phase::Ready => Reason::Ready,
            Phase::Working => Reason::Working,
            Phase::AwaitingApproval => Reason::AwaitingApproval,
            Phase::Done => Reason::Done,
            Phase::Failed => Reason::Failed,
            Phase::Refused => Reason::Refused,
            Phase::Ignored => Reason::Ignored,
        }
    }
}
