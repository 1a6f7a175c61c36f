//! A hospital behind a firewall that lets little out and nothing in, with real processes in network namespaces.
//!
//! Where namespaces cannot be made (they need root on Linux, and `ip` and `nsenter`), the tests say so and do nothing,
//! unless `FEDLEDGER_REQUIRE_NETNS=1` makes that a failure.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod consortium;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    consortium::{Consortium, NODE_PORT, REPLICAS, WEB_PORT, address},
    world::World,
};

/// What became of each leg that `doctor` tried: whether any replica was reached over it.
fn legs(report: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut legs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for check in report["checks"].as_array().unwrap() {
        let topic = check["topic"].as_str().unwrap();
        if ["quic", "tcp", "websocket"].contains(&topic) {
            legs.entry(topic.to_owned()).or_default().insert(check["state"].as_str().unwrap().to_owned());
        }
    }
    legs
}

fn states(quic: &str, tcp: &str, websocket: &str) -> BTreeMap<String, BTreeSet<String>> {
    let state = |leg: &str, state: &str| (leg.to_owned(), BTreeSet::from([state.to_owned()]));
    [state("quic", quic), state("tcp", tcp), state("websocket", websocket)].into()
}

fn check<'a>(report: &'a Value, topic: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["topic"] == topic).unwrap_or_else(|| panic!("no {topic} in {report}"))
}

fn asks(report: &Value) -> Vec<String> {
    let asks = report["checks"].as_array().unwrap().iter().filter_map(|check| check["ask"].as_str());
    asks.map(str::to_owned).collect()
}

#[test]
fn a_hospital_takes_part_through_whatever_its_firewall_leaves_open() {
    let Some(world) = World::build(&REPLICAS.map(address)) else { return };
    let mut consortium = Consortium::start(&world);

    // Everything out is open: every way works, as the node itself would use it.
    world.open();
    let report = consortium.doctor(&["--dir", "clinic/participant"], 0);
    assert_eq!(legs(&report), states("ok", "ok", "ok"), "{report}");
    assert_eq!((&report["works"], &report["running"], &asks(&report).len()), (&true.into(), &false.into(), &0));
    assert_eq!(check(&report, "admission")["state"], "ok", "{report}");
    assert_eq!(check(&report, "data")["state"], "ok", "{report}");

    // Nothing comes in, and no UDP goes out.
    world.close();
    world.allow_tcp(NODE_PORT);
    let report = consortium.doctor(&["--dir", "clinic/participant"], 0);
    assert_eq!(legs(&report), states("warn", "ok", "warn"), "{report}");
    assert_eq!(check(&report, "replicas")["state"], "ok", "{report}");
    let asked = format!(
        "Please allow outbound UDP from this host to {} port {NODE_PORT}; no inbound is needed.",
        address(REPLICAS[0])
    );
    assert!(asks(&report).contains(&asked), "{report}");
    consortium.start_participant();
    consortium.carry_out_plan("over-tcp");
    assert_eq!(world.listening_sockets(), Vec::<String>::new(), "a participant dials out only");

    // While the node runs, doctor tells so and disturbs nothing.
    let report = consortium.doctor(&["--dir", "clinic/participant"], 0);
    assert_eq!(report["running"], true);
    assert_eq!(legs(&report), states("warn", "ok", "warn"), "{report}");

    // The first replica is cut off, then all but the first: the one that is followed is among them once at least.
    world.cut_off(&address(REPLICAS[0]));
    consortium.carry_out_plan("without-the-first");
    let report = consortium.doctor(&["--dir", "clinic/participant"], 0);
    assert_eq!(check(&report, "replicas")["state"], "warn", "{report}");
    assert!(check(&report, "replicas")["advice"].as_str().unwrap().contains(REPLICAS[0]), "{report}");
    world.close();
    world.allow_tcp(NODE_PORT);
    REPLICAS[1..].iter().for_each(|replica| world.cut_off(&address(replica)));
    consortium.carry_out_plan("with-the-first-only");
    consortium.stop_participant();

    // Only the web is let out.
    world.close();
    world.allow_tcp(WEB_PORT);
    let report = consortium.doctor(&["--dir", "clinic/participant"], 0);
    assert_eq!(legs(&report), states("warn", "warn", "ok"), "{report}");
    assert!(asks(&report).iter().any(|ask| ask.contains("outbound UDP and TCP from this host")), "{report}");
    consortium.start_participant();
    consortium.carry_out_plan("over-the-web");
    consortium.stop_participant();

    // Nothing is.
    world.close();
    let report = consortium.doctor(&["--dir", "clinic/participant"], 1);
    assert_eq!(legs(&report), states("warn", "warn", "warn"), "{report}");
    assert_eq!((&report["works"], &check(&report, "replicas")["state"]), (&false.into(), &"fail".into()));
    consortium.stop();
}
