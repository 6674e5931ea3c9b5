//! Selects rows of a scenario.

use std::marker::PhantomData;

use clap::Args;
use clap::builder::PossibleValuesParser;

/// Name and description of each row, in the order they run.
pub(super) trait Table: Clone + Send + Sync + 'static {
    fn rows() -> Vec<(&'static str, &'static str)>;
}

#[derive(Args)]
pub(super) struct Selection<T: Table> {
    /// Run only these, separated by commas
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        value_parser = names::<T>(),
        hide_possible_values = true
    )]
    only: Vec<String>,
    /// List them and exit
    #[arg(long)]
    list: bool,
    #[arg(skip)]
    table: PhantomData<T>,
}

fn names<T: Table>() -> PossibleValuesParser {
    T::rows().into_iter().map(|(name, _)| name).into()
}

impl<T: Table> Selection<T> {
    /// Lists the rows, if requested.
    pub(super) fn listed(&self) -> bool {
        let wanted = T::rows()
            .into_iter()
            .filter(|(name, _)| self.list && self.has(name));
        wanted.for_each(|(name, does)| println!("{name:<18} {does}"));
        self.list
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{attack, faults};
    use super::*;

    fn can_be_chosen<T: Table>() {
        let names: Vec<_> = T::rows().into_iter().map(|(name, _)| name).collect();
        assert_eq!(BTreeSet::from_iter(&names).len(), names.len(), "{names:?}");
        let only = |only: &[&str]| Selection::<T> {
            only: only.iter().map(ToString::to_string).collect(),
            list: false,
            table: PhantomData,
        };
        assert!(names.iter().all(|name| only(&[]).has(name)));
        let one = only(&names[1..2]);
        assert!(one.has(names[1]) && !one.has(names[0]));
    }

    #[test]
    fn each_row_has_a_name_of_its_own_and_can_be_chosen_by_it() {
        can_be_chosen::<attack::Attacks>();
        can_be_chosen::<faults::Table>();
    }
}
