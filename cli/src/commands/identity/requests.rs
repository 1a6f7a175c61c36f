//! Reading the requests of members.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fedledger_proto::kit::MemberRequest;

use crate::{
    context::read_text,
    error::{Exit, Failure},
};

/// The requests in some files, and in the files `*.toml` of some folders, in the order of their names.
pub(crate) fn read_requests(paths: &[PathBuf]) -> Result<Vec<MemberRequest>, Failure> {
    let mut requests = Vec::new();
    for path in paths {
        if path.is_dir() {
            for file in files(path)? {
                requests.push(read_request(&file)?);
            }
        } else {
            requests.push(read_request(path)?);
        }
    }
    Ok(requests)
}

/// The request in a file.
pub(crate) fn read_request(file: &Path) -> Result<MemberRequest, Failure> {
    let refused = |error| Failure::because(Exit::Failed, format!("{} is no request", file.display()), error);
    MemberRequest::from_toml(&read_text(file)?).map_err(refused)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::io("read", folder, &error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}
