//! How a process tree is held together, and which agents that contains.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the processes of a tree are kept within reach of the programs that must end them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Containment {
    /// Wrapper and guardian inherit the tree's orphans; its processes are followed by descent.
    Subreaper,
    /// A control group of the run's own.
    Cgroup,
    /// A PID namespace of the run's own, ended by the kernel together with its first process.
    Pidns,
}

impl Containment {
    /// The word in configuration, flags and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subreaper => "subreaper",
            Self::Cgroup => "cgroup",
            Self::Pidns => "pidns",
        }
    }

    /// Whether this is no weaker than `floor`. A control group and a PID namespace are on a par.
    #[must_use]
    pub const fn satisfies(self, floor: Self) -> bool {
        match (self, floor) {
            (_, Self::Subreaper) | (Self::Cgroup | Self::Pidns, Self::Cgroup | Self::Pidns) => true,
            (Self::Subreaper, Self::Cgroup | Self::Pidns) => false,
        }
    }
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The containment that a user or client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The strongest that is available without a PID namespace.
    #[default]
    Auto,
    /// This containment and nothing weaker.
    Named(Containment),
}

impl Wish {
    /// The word in configuration, flags and requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Named(containment) => containment.as_str(),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text does not name a containment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WishError;

impl fmt::Display for WishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is auto, cgroup, pidns or subreaper")
    }
}

impl std::error::Error for WishError {}

impl FromStr for Wish {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cgroup" => Ok(Self::Named(Containment::Cgroup)),
            "pidns" => Ok(Self::Named(Containment::Pidns)),
            "subreaper" => Ok(Self::Named(Containment::Subreaper)),
            _ => Err(WishError),
        }
    }
}

impl Serialize for Wish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Wish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("containment: {error}")))
    }
}

/// Which agents a containment holds without a survivor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum HoldsAgainst {
    /// Agents that are buggy or do not cooperate: `setsid`, double forks, ignored signals, fork storms.
    Bugs,
    /// Also agents that kill their supervisors or change their control group.
    Hostile,
}

impl HoldsAgainst {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bugs => "bugs",
            Self::Hostile => "hostile",
        }
    }
}

impl fmt::Display for HoldsAgainst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_others_refused() {
        for wish in [Wish::Auto, Wish::Named(Containment::Cgroup), Wish::Named(Containment::Pidns)] {
            assert_eq!(wish.as_str().parse(), Ok(wish));
            let text = serde_json::to_string(&wish).unwrap();
            assert_eq!(serde_json::from_str::<Wish>(&text).unwrap(), wish);
        }
        assert_eq!("Cgroup".parse::<Wish>(), Err(WishError));
        assert!(serde_json::from_str::<Wish>("\"docker\"").unwrap_err().to_string().contains("auto, cgroup"));
    }

    #[test]
    fn a_floor_is_satisfied_by_its_equals_and_betters() {
        use Containment::{Cgroup, Pidns, Subreaper};
        for (containment, floor, holds) in [
            (Subreaper, Subreaper, true),
            (Subreaper, Cgroup, false),
            (Subreaper, Pidns, false),
            (Cgroup, Pidns, true),
            (Pidns, Cgroup, true),
            (Cgroup, Subreaper, true),
        ] {
            assert_eq!(containment.satisfies(floor), holds, "{containment} for {floor}");
        }
    }
}
