//! The labels of the metrics. Each value is one of a few words: text from outside never becomes a label.

use machineid_protocol::{Code, Decision};
use prometheus_client::encoding::EncodeLabelSet;

/// A word from a closed set.
type Word = &'static str;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DecisionLabels {
    pub(super) code: Word,
    pub(super) source: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) endpoint: Word,
    pub(super) outcome: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StateLabel {
    pub(super) state: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct AgentLabels {
    pub(super) state: Word,
    pub(super) killer: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StopLabels {
    pub(super) cause: Word,
    pub(super) outcome: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct CaseLabel {
    pub(super) case: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ResultLabel {
    pub(super) result: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct FileLabel {
    pub(super) file: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PortLabel {
    pub(super) setting: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: Word,
}

/// A known code, or `other`: an authority could invent any number of codes.
pub(super) fn code(code: &Code) -> Word {
    Code::KNOWN.iter().find(|known| *known == code).map_or("other", Code::as_str)
}

/// The label of a decision.
pub(super) fn decision(decision: &Decision) -> Word {
    match decision {
        Decision::Allow { code: allow, .. } => code(allow),
        Decision::Deny(denial) => code(&denial.code),
    }
}
