//! Programs in Go, built where Go is installed.

use std::{
    io::{ErrorKind, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;

/// What programs import beyond Go's standard library.
const PACKAGES: [&str; 2] = ["golang.org/x/mod/sumdb/note", "golang.org/x/mod/sumdb/tlog"];

/// Where Debian's package `golang-golang-x-mod-dev` puts them; the user's own folder is searched first.
const DEBIAN_GOPATH: &str = "/usr/share/gocode";

/// Kept between runs, since it takes a while to fill.
const BUILD_CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/go-build");

/// A program that was built.
pub struct Program {
    folder: TempDir,
}

impl Program {
    /// Builds `programs/NAME.go`; prints why, and gives nothing, where Go or a package that it needs is missing.
    ///
    /// # Panics
    ///
    /// If everything is there and the program does not compile.
    pub fn build(name: &str) -> Option<Self> {
        let gopath = match gopath() {
            Ok(gopath) => gopath,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let folder = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/programs").join(name).with_extension("go");
        let built =
            go(&gopath).arg("build").arg("-o").arg(folder.path().join(EXECUTABLE)).arg(&source).output().unwrap();
        assert!(built.status.success(), "{} does not build: {}", source.display(), lossy(&built.stderr));
        Some(Self { folder })
    }

    /// Runs the program, which reads all of `input` as JSON and then writes its answer as JSON.
    ///
    /// # Panics
    ///
    /// If the program fails or answers something else.
    pub fn run<A: DeserializeOwned>(&self, input: &impl Serialize) -> A {
        let mut command = Command::new(self.folder.path().join(EXECUTABLE));
        let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        running.stdin.take().unwrap().write_all(&serde_json::to_vec(input).unwrap()).unwrap();
        let output = running.wait_with_output().unwrap();
        assert!(output.status.success(), "the program failed: {}", lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Name of the executable in its folder.
const EXECUTABLE: &str = "program";

/// Folders with [`PACKAGES`], or why there are none.
fn gopath() -> Result<String, String> {
    let own = match go("").args(["env", "GOPATH"]).env_remove("GOPATH").output() {
        Ok(output) => lossy(&output.stdout).trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err("Go is not installed".into()),
        Err(error) => return Err(format!("Go does not run: {error}")),
    };
    let gopath = format!("{own}:{DEBIAN_GOPATH}");
    let listed = go(&gopath).arg("list").args(PACKAGES).output().map_err(|error| error.to_string())?;
    if listed.status.success() {
        Ok(gopath)
    } else {
        Err(format!("Go does not find {} (golang-golang-x-mod-dev in Debian): {}", PACKAGES[0], lossy(&listed.stderr)))
    }
}

/// Go, looking for packages in folders only: nothing is downloaded.
fn go(gopath: &str) -> Command {
    let mut command = Command::new("go");
    command.env("GOPATH", gopath).env("GO111MODULE", "off").env("GOFLAGS", "").env("GOTOOLCHAIN", "local");
    command.env("GOCACHE", BUILD_CACHE).env("CGO_ENABLED", "0");
    command
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
