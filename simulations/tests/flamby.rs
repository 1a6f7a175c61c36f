//! A short FLamby reproduction: few seeds, so that the acceptance bands are wide, but the real data and the real cores.

use fedledger_simulations::flamby::{Centres, Strategy, reproduce};

#[test]
fn federated_averaging_and_adam_reach_the_published_accuracy() {
    let report = reproduce(&[Strategy::FedAvg, Strategy::FedAdam], 5, 2).unwrap();
    assert!(report.ok, "{report}");
    assert_eq!(report.seeds, 5);
}

#[test]
fn yogi_and_adagrad_take_the_same_path_at_these_settings() {
    let centres = Centres::load().unwrap();
    for seed in [1, 2] {
        let [yogi, adagrad] = [Strategy::FedYogi, Strategy::FedAdagrad].map(|of| centres.run(of, seed).unwrap());
        // One test row may fall to the other side of the decision: the smallest centre has sixteen.
        let rows_apart: f64 =
            yogi.centres.iter().zip(adagrad.centres).map(|(yogi, adagrad)| (yogi - adagrad).abs()).sum();
        assert!(rows_apart <= 1.0 / 16.0, "{yogi:?} and {adagrad:?}");
    }
}

#[test]
fn a_seed_gives_the_same_result_every_time() {
    let centres = Centres::load().unwrap();
    let results = [(); 2].map(|()| centres.run(Strategy::FedAdam, 42).unwrap());
    assert_eq!(results[0], results[1]);
}
