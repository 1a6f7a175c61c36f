//! Plans that say what is done to records, and what contributions say of records that were skipped.

use fedledger_federation::{
    Command,
    architecture::Architecture,
    audit,
    command::JoinRound,
    data_description::{
        DataDescription, Feature, Label, Missing, Normalize, PositiveWhen, ROWS_MAX, SkippedRows, TableDescription,
    },
    plan::{Plan, PlanError},
};

use crate::consortium::{Consortium, plan};

const BASEL: &str = "basel/participant";

/// A table with so many numeric features, of which a site may skip so many rows.
fn described(features: usize, bad_rows_max: u64) -> Plan {
    let numeric = |number| Feature::Numeric { column: format!("value-{number}") };
    let positive_when = Some(PositiveWhen::Equals(vec!["yes".to_owned()]));
    let data = DataDescription::Table(TableDescription {
        missing: Missing::DropRow,
        normalize: Normalize::Site,
        label: Label { column: "sick".to_owned(), positive_when, classes: None },
        features: (0..features).map(numeric).collect(),
        group: None,
        bad_rows_max,
    });
    Plan { data: Some(data), ..plan("heart") }
}

fn skipped(counts: &[(&str, u64)]) -> SkippedRows {
    counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

#[test]
fn a_plan_describes_the_records_that_its_model_takes() {
    assert_eq!(described(2, 0).check(), Ok(()));
    let misfit = |what, described, modelled| Err(PlanError::DataMisfit { what, described, modelled });
    assert_eq!(described(3, 0).check(), misfit("the features", 3, 2));
    let mut classes = described(2, 0);
    if let Some(DataDescription::Table(table)) = &mut classes.data {
        table.label.positive_when = None;
        table.label.classes = Some(["a", "b", "c"].map(str::to_owned).to_vec());
    }
    assert_eq!(classes.check(), misfit("the classes", 3, 2));
    let mut wrong = described(2, 0);
    wrong.architecture = Architecture::logistic_regression(0);
    assert!(matches!(wrong.check(), Err(PlanError::Architecture(_))), "the first mistake is named");
    assert!(matches!(described(0, 0).check(), Err(PlanError::Data(_))));
}

#[test]
fn a_plan_without_a_description_has_the_id_that_it_always_had() {
    let described = described(2, 0);
    assert_ne!(described.id(), plan("heart").id());
    let json = serde_json::to_string(&plan("heart")).unwrap();
    assert!(!json.contains("\"data\""), "{json}");
}

#[test]
fn a_site_skips_no_more_rows_than_the_plan_lets_it() {
    let (mut consortium, id) = Consortium::ready_for(3, described(2, 3));
    let key = consortium.open_round(&id);
    consortium.accept(BASEL, Command::JoinRound(JoinRound { key }));
    let mut contribution = consortium.contribution(&key, "basel");
    let mut refused = |counts: &[(&str, u64)]| {
        contribution.skipped_rows = skipped(counts);
        consortium.refused(BASEL, Command::Contribute(contribution.clone()))
    };
    assert_eq!(refused(&[("malformed", 3), ("unknown_label", 1)]), "wrong_skipped_rows");
    assert_eq!(refused(&[("unwelcome", 1)]), "wrong_skipped_rows");
    assert_eq!(refused(&[("malformed", 0)]), "wrong_skipped_rows");
    contribution.skipped_rows = skipped(&[("malformed", 2), ("unknown_label", 1)]);
    consortium.accept(BASEL, Command::Contribute(contribution.clone()));
    let rows = audit::contributions(&consortium.source(), consortium.state()).unwrap();
    assert_eq!(rows[0].skipped_rows, contribution.skipped_rows);
}

#[test]
fn without_a_description_the_site_alone_knows_how_many_it_may_skip() {
    let (mut consortium, id) = Consortium::ready_for(3, plan("heart"));
    let key = consortium.open_round(&id);
    consortium.accept(BASEL, Command::JoinRound(JoinRound { key }));
    let mut contribution = consortium.contribution(&key, "basel");
    contribution.skipped_rows = skipped(&[("malformed", ROWS_MAX + 1)]);
    assert_eq!(consortium.refused(BASEL, Command::Contribute(contribution.clone())), "wrong_skipped_rows");
    contribution.skipped_rows = skipped(&[("malformed", 12)]);
    consortium.accept(BASEL, Command::Contribute(contribution));
}
