//! Keys made on site: what is sent, what comes back, and what must not be merged.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use fedledger_federation::member::{Member, NodeKind};
use zeroize::Zeroizing;

use super::*;

const CHEAP: ScryptCost = ScryptCost { log_n: 2, r: 1, p: 1 };

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn counter(start: u16) -> impl FnMut() -> [u8; 32] {
    let mut count = start;
    move || {
        count += 1;
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&count.to_be_bytes());
        bytes
    }
}

fn budapest() -> MemberDescription {
    let mut description = described().members.remove(1);
    description.roles.insert(fedledger_federation::member::Role::Replica);
    description
}

/// A directory in which `budapest` has made its keys, and the kits that were provisioned with its request.
struct OnSite {
    folder: tempfile::TempDir,
    site: Site,
}

impl OnSite {
    fn new(protection: Option<Protection<'_>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::create(&folder.path().join("site"), budapest(), protection, &mut counter(1000)).unwrap();
        let request = site.request(protection.map(|protection| protection.passphrase)).unwrap();
        let kits = provision_with_requests(&described(), &[request], &mut counter(0)).unwrap();
        write_kits(&kits, &folder.path().join("kits"), false).unwrap();
        Self { folder, site }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn installed() -> Self {
        let on_site = Self::new(None);
        on_site.site.install(&on_site.at("kits/budapest"), None).unwrap();
        on_site
    }
}

#[test]
fn two_halves_make_a_kit() {
    let secret = passphrase("x");
    for protection in [None, Some(Protection { passphrase: &secret, cost: CHEAP })] {
        let on_site = OnSite::new(protection);
        let given = protection.map(|protection| protection.passphrase);
        let site = Site::open(&on_site.at("site")).unwrap();
        site.install(&on_site.at("kits/budapest"), given).unwrap();
        let replica = ReplicaKit::load_with(&on_site.at("site/replica"), given).unwrap();
        assert_eq!((replica.member.as_str(), replica.number), ("budapest", 2));
        assert_eq!(replica.config.api, "192.0.2.7:9100".parse().unwrap());
        let participant = ParticipantKit::load_with(&on_site.at("site/participant"), given).unwrap();
        assert!(participant.policy.auto_approve, "the site's own policy");
        assert_eq!(participant.table_path(), Path::new("/srv/heart.csv"));
        let identity = Identity::load_with(&on_site.at("site/identity"), given).unwrap();
        assert_eq!(identity.genesis, GenesisFile::load(&on_site.at("kits/genesis.cbor")).unwrap());
        if protection.is_some() {
            assert!(matches!(ReplicaKit::load(&on_site.at("site/replica")), Err(KitError::Locked { .. })));
            let wrong = Identity::load_with(&on_site.at("site/identity"), Some(&passphrase("y")));
            assert!(matches!(wrong, Err(KitError::WrongPassphrase { .. })), "{wrong:?}");
        }
    }
}

#[test]
fn no_secret_leaves_the_site_and_none_is_drawn_for_it() {
    let on_site = OnSite::new(None);
    let mut files = Vec::new();
    collect(&on_site.at("kits"), &mut files);
    assert!(
        !files
            .iter()
            .any(|file| file.starts_with(on_site.at("kits/budapest"))
                && file.extension().is_some_and(|end| end == "key"))
    );
    let mut keys = Vec::new();
    collect(&on_site.at("site"), &mut keys);
    keys.retain(|file| file.extension().is_some_and(|end| end == "key"));
    assert_eq!(keys.len(), 10);
    for key in keys {
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
        let secret = fs::read_to_string(&key).unwrap();
        for file in &files {
            let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
            assert!(!text.contains(secret.trim()), "{} is in {}", key.display(), file.display());
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

#[test]
fn requests_that_do_not_fit_the_description_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::create(&folder.path().join("site"), budapest(), None, &mut counter(1000)).unwrap();
    let request = site.request(None).unwrap();
    let provisioned = |description: &ConsortiumDescription, requests: &[MemberRequest]| {
        provision_with_requests(description, requests, &mut counter(0)).unwrap_err()
    };
    let twice = provisioned(&described(), &[request.clone(), request.clone()]);
    assert_eq!(twice, ProvisionError::TwoRequests("budapest".into()));
    let mut fewer = described();
    fewer.members.remove(1);
    assert_eq!(
        provisioned(&fewer, std::slice::from_ref(&request)),
        ProvisionError::RequestOfStranger("budapest".into())
    );
    let mut other = described();
    other.members[1].roles.insert(fedledger_federation::member::Role::Operator);
    assert_eq!(provisioned(&other, std::slice::from_ref(&request)), ProvisionError::RequestedRoles("budapest".into()));
    let changed = MemberRequest { name: "Somebody".into(), ..request };
    assert!(matches!(provisioned(&described(), &[changed]), ProvisionError::Request { .. }));
}

#[test]
fn only_the_own_approval_is_installed() {
    let on_site = OnSite::new(None);
    let other = OnSite { folder: tempfile::tempdir().unwrap(), site: on_site.site.clone() };
    let stranger = Site::create(&other.at("site"), budapest(), None, &mut counter(2000)).unwrap();
    let refused = stranger.install(&on_site.at("kits/budapest"), None).unwrap_err();
    assert!(matches!(refused, SiteError::Kit(KitError::ForeignKey { .. })), "{refused}");
    let refused = on_site.site.install(&on_site.at("kits/cleveland"), None).unwrap_err();
    assert!(matches!(refused, SiteError::OtherMember { .. }), "{refused}");
    // A certificate for a key that is not here.
    let approval = on_site.at("kits/budapest");
    fs::copy(on_site.at("kits/cleveland/identity/api.crt"), approval.join("identity/api.crt")).unwrap();
    let refused = on_site.site.install(&approval, None).unwrap_err();
    assert!(matches!(refused, SiteError::Kit(KitError::ForeignCertificate { .. })), "{refused}");
    assert!(!on_site.at("site/identity/identity.toml").exists(), "nothing was written");
    assert!(!on_site.at("site/replica/node.toml").exists(), "nothing was written");
}

#[test]
fn an_installed_site_stays_in_its_consortium() {
    let on_site = OnSite::installed();
    let request = on_site.site.request(None).unwrap();
    let kits = provision_with_requests(&described(), &[request], &mut counter(3000)).unwrap();
    write_kits(&kits, &on_site.at("other"), false).unwrap();
    let refused = on_site.site.install(&on_site.at("other/budapest"), None).unwrap_err();
    assert!(matches!(refused, SiteError::OtherConsortium { .. }), "{refused}");
    fs::write(on_site.at("site/participant/policy.toml"), "rounds_max = 3").unwrap();
    on_site.site.install(&on_site.at("kits/budapest"), None).unwrap();
    let kit = ParticipantKit::load(&on_site.at("site/participant")).unwrap();
    assert_eq!(kit.policy.rounds_max, 3, "the site's policy stays");
}

#[test]
fn an_interrupted_installation_is_no_kit_and_can_be_finished() {
    let complete = OnSite::installed();
    let mut files = Vec::new();
    collect(&complete.at("site"), &mut files);
    // A participant starts without the authority's certificate, too, which only WebSocket needs.
    let optional = [Path::new("site.toml"), Path::new("participant/keys/ca.crt")];
    let is_optional = |file: &Path| optional.iter().any(|optional| file.ends_with(optional));
    files.retain(|file| file.extension().is_none_or(|end| end != "key") && !is_optional(file));
    assert_eq!(files.len(), 11);
    for missing in files {
        let bytes = fs::read(&missing).unwrap();
        fs::remove_file(&missing).unwrap();
        let kit = ["replica", "participant", "identity"].map(|kit| complete.at("site").join(kit));
        let loaded = [
            ReplicaKit::load(&kit[0]).map(drop),
            ParticipantKit::load(&kit[1]).map(drop),
            Identity::load(&kit[2]).map(drop),
        ];
        assert_eq!(loaded.iter().filter(|loaded| loaded.is_err()).count(), 1, "{}", missing.display());
        complete.site.install(&complete.at("kits/budapest"), None).unwrap();
        assert_eq!(fs::read(&missing).unwrap(), bytes);
    }
}

#[test]
fn an_interrupted_drawing_of_keys_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("site");
    Site::create(&directory, budapest(), None, &mut counter(0)).unwrap();
    fs::write(directory.join("provisioning.incomplete"), "").unwrap();
    let error = Site::open(&directory).unwrap_err().to_string();
    assert!(error.contains("interrupted") && error.contains("remove it"), "{error}");
}

/// The member with the keys of a rotation in place, as the ledger would hold it.
fn rotated(on_site: &OnSite, request: &RotationRequest) -> Member {
    let genesis = GenesisFile::load(&on_site.at("kits/genesis.cbor")).unwrap();
    let member = genesis.genesis.members.iter().find(|member| member.id == "budapest").unwrap();
    let read = RotationRequest::from_toml(&request.to_toml().unwrap()).unwrap();
    read.check(&genesis.chain, member).unwrap()
}

#[test]
fn new_keys_count_when_the_ledger_names_them() {
    let on_site = OnSite::installed();
    let site = InstalledSite::open(&on_site.at("site")).unwrap();
    let request = site.rotate(Some(NodeRole::Replica), &[], None, &mut counter(5000)).unwrap();
    assert_eq!(request.keys.len(), 4);
    let again = site.rotate(Some(NodeRole::Replica), &[], None, &mut counter(6000)).unwrap();
    assert_eq!(again, request, "drawn once, however often it is asked");

    let before = ReplicaKit::load(&on_site.at("site/replica")).unwrap();
    let member = rotated(&on_site, &request);
    let node = &member.nodes[0];
    let after = before.clone().for_node(node).unwrap();
    assert_eq!(after.transaction_key.public(), node.transaction_key);
    assert_ne!(after.transaction_key.public(), before.transaction_key.public());
    let NodeKind::Replica { log_key, cosign_key, .. } = node.kind else { panic!("no replica") };
    assert_eq!((after.log_key.public(), after.cosign_key.public()), (log_key, cosign_key));

    let replaced = site.adopt(member.clone(), None).unwrap();
    assert_eq!(replaced.len(), 4);
    let adopted = ReplicaKit::load(&on_site.at("site/replica")).unwrap();
    assert_eq!(adopted.transport_key.public(), node.transport_key, "without the ledger");
    assert!(!on_site.at("site/replica/keys/log.key.next").exists());
    Identity::load(&on_site.at("site/identity")).unwrap();
    ParticipantKit::load(&on_site.at("site/participant")).unwrap();
    assert_eq!(InstalledSite::open(&on_site.at("site")).unwrap().adopt(member, None).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupted_adoption_is_finished() {
    let on_site = OnSite::installed();
    let site = InstalledSite::open(&on_site.at("site")).unwrap();
    let purposes = [KeyPurpose::Transport, KeyPurpose::Witness];
    let request = site.rotate(Some(NodeRole::Participant), &purposes, None, &mut counter(5000)).unwrap();
    let member = rotated(&on_site, &request);
    // The records are written, and one of two keys has its name.
    for kit in ["identity", "replica", "participant"] {
        let record = crate::kit::member_files::record_text(&member).unwrap();
        fs::write(on_site.at("site").join(kit).join("member.toml"), record).unwrap();
    }
    let keys = on_site.at("site/participant/keys");
    fs::rename(keys.join("transport.key.next"), keys.join("transport.key")).unwrap();
    let kit = ParticipantKit::load(&on_site.at("site/participant")).unwrap();
    assert_eq!(kit.transport_key.public(), request.keys[0].new);
    assert_eq!(kit.witness_key.public(), request.keys[1].new);
    let site = InstalledSite::open(&on_site.at("site")).unwrap();
    assert_eq!(site.adopt(member, None).unwrap(), [keys.join("witness.key")]);
    ParticipantKit::load(&on_site.at("site/participant")).unwrap();
}

#[test]
fn keys_that_are_not_here_are_not_adopted() {
    let on_site = OnSite::installed();
    let site = InstalledSite::open(&on_site.at("site")).unwrap();
    let request = site.rotate(None, &[], None, &mut counter(5000)).unwrap();
    let member = rotated(&on_site, &request);
    fs::remove_file(on_site.at("site/identity/organisation.key.next")).unwrap();
    let refused = site.clone().adopt(member.clone(), None).unwrap_err();
    assert!(matches!(refused, SiteError::Kit(KitError::ForeignKey { .. })), "{refused}");
    assert!(!on_site.at("site/identity/member.toml").exists(), "nothing was changed");
    let stranger = Member { id: "cleveland".into(), ..member };
    assert!(matches!(site.clone().adopt(stranger, None), Err(SiteError::OtherMember { .. })));
    let wrong = site.rotate(None, &[KeyPurpose::Log], None, &mut counter(0)).unwrap_err();
    assert!(matches!(wrong, SiteError::NoKey { .. }), "{wrong}");
}

#[test]
fn a_member_that_is_admitted_later_starts_from_its_record() {
    let (folder, newcomer) = (written(), tempfile::tempdir().unwrap());
    let description = MemberDescription { id: "va".into(), ..budapest() };
    let site = Site::create(&newcomer.path().join("site"), description, None, &mut counter(1000)).unwrap();
    let request = site.request(None).unwrap();
    let record = request.check(Some(3)).unwrap();
    let kits = ProvisionedKits::open(folder.path(), None).unwrap();
    let other = Member { name: "Somebody".into(), ..record.clone() };
    assert!(matches!(kits.approve(&request, &other), Err(ApprovalError::OtherRecord(_))));
    let files = kits.approve(&request, &record).unwrap();
    assert!(files.values().all(|file| !file.secret));
    let approval = newcomer.path().join("approval");
    write_new(&files, &approval).unwrap();
    assert!(matches!(write_new(&files, &approval), Err(WriteError::NotNew { .. })));
    assert_eq!(site.install(&approval, None).unwrap(), record);
    let kit = ReplicaKit::load(&newcomer.path().join("site/replica")).unwrap();
    assert_eq!((kit.number, kit.config.peers.len()), (3, 2));
    let participant = ParticipantKit::load(&newcomer.path().join("site/participant")).unwrap();
    assert_eq!(participant.config.peers.len(), 3, "its own replica, too");
    assert_eq!(Identity::load(&newcomer.path().join("site/identity")).unwrap().member, "va");
    let path = newcomer.path().join("site/replica/member.toml");
    replace(&path, "number = 3", "numbers = 3");
    assert!(matches!(ReplicaKit::load(&newcomer.path().join("site/replica")), Err(KitError::Toml { .. })));
}

#[test]
fn a_passphrase_is_changed_in_place_and_an_interruption_is_finished() {
    let folder = written();
    let (first, second) = (passphrase("first"), passphrase("second"));
    let protect = |passphrase| Some(Protection { passphrase, cost: CHEAP });
    let change = |old, new| change_passphrase(folder.path(), old, new, &mut counter(0));
    // The authority alone lies at this level.
    assert_eq!(change(None, protect(&first)).unwrap(), [folder.path().join("ca/ca.key")]);
    ProvisionedKits::open(folder.path(), Some(&first)).unwrap();

    let member = folder.path().join("cleveland");
    let change = |old, new| change_passphrase(&member, old, new, &mut counter(0));
    assert_eq!(change(None, protect(&first)).unwrap().len(), 10);
    let kit = ReplicaKit::load_with(&member.join("replica"), Some(&first)).unwrap();
    // As if it had been interrupted after one file.
    let key = member.join("identity/api.key");
    change_passphrase(&member.join("identity"), Some(&first), protect(&second), &mut counter(0)).unwrap();
    assert!(matches!(
        Identity::load_with(&member.join("identity"), Some(&first)),
        Err(KitError::WrongPassphrase { .. })
    ));
    assert_eq!(change(Some(&first), protect(&second)).unwrap().len(), 8);
    let before = fs::read(&key).unwrap();
    assert!(matches!(change(Some(&first), None), Err(SiteError::Kit(KitError::WrongPassphrase { .. }))));
    assert_eq!(fs::read(&key).unwrap(), before);
    assert_eq!(change(Some(&second), None).unwrap().len(), 10);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let plain = ReplicaKit::load(&member.join("replica")).unwrap();
    assert_eq!(plain.log_key.public(), kit.log_key.public());
    assert_eq!(change(None, None).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn new_keys_are_as_protected_as_the_current_ones() {
    let on_site = OnSite::installed();
    let secret = passphrase("x");
    let protection = Some(Protection { passphrase: &secret, cost: CHEAP });
    change_passphrase(&on_site.at("site"), None, protection, &mut counter(0)).unwrap();
    let site = InstalledSite::open(&on_site.at("site")).unwrap();
    let request = site.rotate(None, &[], Some(&secret), &mut counter(5000)).unwrap();
    let next = fs::read_to_string(on_site.at("site/identity/organisation.key.next")).unwrap();
    assert!(next.starts_with("-----BEGIN ENCRYPTED"));
    let identity = Identity::load_with(&on_site.at("site/identity"), Some(&secret)).unwrap();
    let member = rotated(&on_site, &request);
    let identity = identity.for_member(&member).unwrap();
    assert_eq!(identity.organisation_key.public(), member.organisation_key);
}

#[test]
fn provisioning_can_encrypt() {
    let mut kits = provisioned(&described()).unwrap();
    let secret = passphrase("x");
    kits.protect(Protection { passphrase: &secret, cost: CHEAP }, &mut counter(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_kits(&kits, folder.path(), false).unwrap();
    assert!(kits.files.values().filter(|file| file.secret).all(|file| file.bytes.starts_with(b"-----BEGIN ENCRYPTED")));
    ReplicaKit::load_with(&folder.path().join("cleveland/replica"), Some(&secret)).unwrap();
}

#[test]
fn what_is_no_passphrase_is_refused() {
    for text in ["", "two\nlines", &"x".repeat(1025)] {
        assert!(Passphrase::new(Zeroizing::new(text.to_owned())).is_err(), "{text:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passphrase");
    for (text, fits) in [("x\r\n", true), ("x", true), ("", false), ("\n", false), ("x\n\n", false)] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Passphrase::load(&file).is_ok(), fits, "{text:?}");
    }
    assert_eq!(format!("{:?}", passphrase("x")), "Passphrase");
}

/// The approval is made by whoever provisions, and must not decide which programs run at a hospital.
#[test]
fn only_the_site_itself_names_programs() {
    let on_site = OnSite::new(None);
    let sent = on_site.at("kits/budapest/participant/node.toml");
    let text = fs::read_to_string(&sent).unwrap() + "\n[trainers.pytorch]\nprogram = \"/tmp/theirs\"\n";
    fs::write(&sent, text).unwrap();
    on_site.site.install(&on_site.at("kits/budapest"), None).unwrap();
    let kit = || ParticipantKit::load(&on_site.at("site/participant")).unwrap();
    assert!(kit().config.trainers.is_empty(), "a program of somebody else would run");

    let own = on_site.at("site/participant/node.toml");
    let text = fs::read_to_string(&own).unwrap() + "\n[trainers.numpy]\nprogram = \"train.py\"\n";
    fs::write(&own, text).unwrap();
    on_site.site.install(&on_site.at("kits/budapest"), None).unwrap();
    assert_eq!(kit().config.trainers.keys().collect::<Vec<_>>(), ["numpy"], "a newer approval leaves the site's own");

    let text = fs::read_to_string(&own).unwrap().replace("time_max_s = 86400", "time_max_s = 0");
    fs::write(&own, text).unwrap();
    let refused = ParticipantKit::load(&on_site.at("site/participant")).unwrap_err().to_string();
    assert!(refused.contains("trainers.time_max_s"), "{refused}");
}
