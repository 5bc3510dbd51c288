use std::os::unix::fs::PermissionsExt;

use super::*;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Store {
        let file = |name: &str| self.folder.path().join(name);
        let configured =
            IdentityFiles { certificate: file("c.pem"), private_key: file("k.pem"), root_ca: file("r.pem") };
        Store::new(self.folder.path().join("state/identity"), configured)
    }

    fn configure(&self, certificate: &str) {
        fs::create_dir_all(self.folder.path().join("state")).unwrap();
        fs::write(self.folder.path().join("c.pem"), certificate).unwrap();
    }

    fn install(&self, made_for: &str, thing_name: &str) -> Generation {
        let about = About {
            thing_name: thing_name.to_owned(),
            made_for: made_for.to_owned(),
            device_configuration: Map::new(),
        };
        self.store().install(&format!("certificate for {made_for}"), "key", &about).unwrap()
    }

    fn in_force(&self) -> Option<u64> {
        self.store().in_force().map(|generation| generation.number)
    }

    fn others(&self) -> Vec<u64> {
        self.store().others("thing").into_iter().map(|generation| generation.number).collect()
    }
}

#[test]
fn a_new_generation_is_in_force_by_one_step_and_the_one_before_stays() {
    let bench = Bench::new();
    assert_eq!(bench.in_force(), None);
    bench.configure("configured");
    assert_eq!((bench.in_force(), bench.others()), (Some(0), vec![]));
    let first = bench.install("a", "thing");
    assert_eq!((bench.in_force(), bench.others()), (Some(0), vec![1]));
    assert!(bench.store().is_pending(&first));
    assert_eq!(bench.store().pending_for("a").map(|found| found.number), Some(1));
    assert!(bench.store().pending_for("b").is_none());
    bench.store().put_in_force(&first).unwrap();
    assert_eq!((bench.in_force(), bench.others()), (Some(1), vec![0]));
    assert!(!bench.store().is_pending(&first) && bench.store().pending_for("a").is_none());
    assert_eq!(fs::read(&first.files.certificate).unwrap(), b"certificate for a");
    for path in [&first.files.certificate, &first.files.private_key] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    for made_for in ["b", "c"] {
        let next = bench.install(made_for, "thing");
        bench.store().put_in_force(&next).unwrap();
    }
    assert_eq!((bench.in_force(), bench.others()), (Some(3), vec![2, 0]));
}

#[test]
fn what_has_not_been_in_force_is_given_up_and_nothing_else() {
    let bench = Bench::new();
    let first = bench.install("a", "thing");
    bench.store().put_in_force(&first).unwrap();
    bench.install("b", "thing");
    bench.store().discard();
    assert_eq!((bench.in_force(), bench.others()), (Some(1), vec![]));
    assert_eq!(bench.install("c", "thing").number, 2);
}

#[test]
fn whoever_configures_another_certificate_means_that_one() {
    let bench = Bench::new();
    bench.configure("configured");
    let first = bench.install("a", "thing");
    bench.store().put_in_force(&first).unwrap();
    bench.configure("another");
    assert_eq!(bench.in_force(), Some(0));
    // And what comes after it counts on.
    let next = bench.install("b", "thing");
    assert_eq!(next.number, 2);
    bench.store().put_in_force(&next).unwrap();
    assert_eq!((bench.in_force(), bench.others()), (Some(2), vec![0]));
    // That it goes away is no wish for another one.
    fs::remove_file(bench.folder.path().join("c.pem")).unwrap();
    assert_eq!(bench.in_force(), Some(2));
}

#[test]
fn another_thing_s_identity_is_never_fallen_back_to() {
    let bench = Bench::new();
    bench.configure("configured");
    bench.install("a", "other");
    assert_eq!(bench.others(), Vec::<u64>::new());
}

#[test]
fn what_is_half_there_is_not_there() {
    let bench = Bench::new();
    bench.configure("configured");
    let first = bench.install("a", "thing");
    bench.store().put_in_force(&first).unwrap();
    let folder = bench.folder.path().join("state/identity");
    fs::create_dir(folder.join(STAGED)).unwrap();
    fs::write(folder.join(STAGED).join(CERTIFICATE), "half").unwrap();
    fs::write(folder.join(CANDIDATE), "{torn").unwrap();
    assert!(bench.store().candidate().is_none());
    bench.store().put_in_force(&first).unwrap();
    assert!(!folder.join(CANDIDATE).exists());
    fs::create_dir(folder.join("2")).unwrap();
    assert_eq!((bench.in_force(), bench.others()), (Some(1), vec![0]));
    assert_eq!(bench.install("b", "thing").number, 3);
    // A record that cannot be read leaves what was configured.
    for torn in ["", "{", "{\"generation\":7,\"configured\":null}"] {
        fs::write(folder.join(CURRENT), torn).unwrap();
        assert_eq!(bench.in_force(), Some(0), "{torn:?}");
    }
}
