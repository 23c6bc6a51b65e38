//! Sets of faults.
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FaultKind;

/// Several faults of one frame; in JSON a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultSet(u32);

impl FaultSet {
    /// None.
    pub const EMPTY: FaultSet = FaultSet(0);

    /// Adds a fault.
    pub fn insert(&mut self, kind: FaultKind) {
        self.0 |= 1 << kind as u32;
    }

    /// Whether this fault is among them.
    #[must_use]
    pub const fn contains(self, kind: FaultKind) -> bool {
        self.0 & 1 << kind as u32 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The faults, in the order of [`FaultKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }
}

impl FromIterator<FaultKind> for FaultSet {
    fn from_iter<I: IntoIterator<Item = FaultKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(FaultSet::EMPTY, |mut set, kind| {
            set.insert(kind);
            set
        })
    }
}

impl Serialize for FaultSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for FaultSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<FaultKind>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json_and_sets_are_lists_of_them() {
        for kind in FaultKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let set: FaultSet = [FaultKind::Restart, FaultKind::Sprint].into_iter().collect();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["sprint","restart"]"#);
        assert_eq!(serde_json::from_str::<FaultSet>(r#"["restart","sprint"]"#).unwrap(), set);
        assert!(serde_json::from_str::<FaultSet>(r#"["rust"]"#).is_err());
        assert_eq!(FaultKind::ALL.into_iter().collect::<FaultSet>().iter().count(), 21);
    }
}
