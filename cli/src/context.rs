//! What every command works with: output, the runtime, and the ledger, replica and identity that were named.

use std::{fs::File, io::Read as _, path::Path};

use fedledger_federation::history::{History, Keep};
use fedledger_proto::{
    api::{ApiClient, Level, SeenHead, Vouched},
    kit::{Identity, KitError, Passphrase},
};
use tokio::runtime::{Handle, Runtime};

use crate::{
    args::GlobalArgs,
    error::{Exit, Failure},
    output::Output,
    passphrase,
    places::Places,
    remote::RemoteSource,
    source::Source,
};

/// Largest file that people write for a command, in bytes.
const TEXT_SIZE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where results go.
    pub output: Output,
    global: GlobalArgs,
    runtime: Runtime,
}

impl Context {
    /// The context of a call.
    pub fn new(global: GlobalArgs) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::because(Exit::Failed, "cannot start", error))?;
        if global.promise.is_some() && Level::from(global.wait_for) != Level::Accepted {
            return Err(Failure::new(Exit::Usage, "only a transaction that is not waited for is promised")
                .next("add --wait-for accepted, or leave out --promise"));
        }
        Ok(Self { output: Output::new(&global), global, runtime })
    }

    /// Waits for something asynchronous.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Threads to compute with.
    pub fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Where ledger, replicas and identity are to be found.
    pub fn places(&self) -> Result<Places, Failure> {
        Places::find(&self.global)
    }

    /// The runtime, for threads that wait on their own.
    pub fn runtime(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// The identity that was named.
    pub fn identity(&self) -> Result<Identity, Failure> {
        let directory = Places::find(&self.global)?.identity.ok_or_else(|| {
            Failure::new(Exit::Usage, "no identity is given to connect with").next(
                "name one with --identity DIR or FEDLEDGER_IDENTITY, or run the command below a folder with \
                 fedledger.toml",
            )
        })?;
        Ok(self.unlock(|passphrase| Identity::load_with(&directory, passphrase))?)
    }

    /// The passphrase that was given, if one was.
    pub fn passphrase(&self) -> Result<Option<Passphrase>, Failure> {
        Ok(passphrase::given(self.global.passphrase_file.as_deref())?)
    }

    /// Opens something that may be encrypted: with the passphrase that was given, or one that is asked for if there is
    /// a terminal.
    pub fn unlock<T, E>(&self, open: impl Fn(Option<&Passphrase>) -> Result<T, E>) -> Result<T, E>
    where
        E: passphrase::Locked + From<KitError>,
    {
        passphrase::unlock(self.global.passphrase_file.as_deref(), open)
    }

    /// A connection to the replica that was named, which commands that write or watch need.
    pub fn client(&self) -> Result<(ApiClient, Identity), Failure> {
        let urls = Places::find(&self.global)?.connect;
        if urls.is_empty() {
            let failure = Failure::new(Exit::Usage, "this command needs a running replica, and none is given");
            return Err(failure.next(
                "name one with --connect URL or FEDLEDGER_CONNECT, or run the command below a folder with \
                 fedledger.toml",
            ));
        }
        let identity = self.identity()?;
        let client = self.block_on(ApiClient::connect_any(&urls, &identity))?;
        self.check_head(&client)?;
        Ok((client, identity))
    }

    /// The level that written entries must reach.
    pub fn wait_for(&self) -> Level {
        self.global.wait_for.into()
    }

    /// Where a replica's promise is to be kept.
    pub fn promise(&self) -> Option<&Path> {
        self.global.promise.as_deref()
    }

    /// Shows the replica the last head that the identity has seen, and compares. Every later call does the same in short.
    fn check_head(&self, client: &ApiClient) -> Result<(), Failure> {
        let head = self.block_on(client.check_head())?;
        if let SeenHead::Consistent { vouched: Vouched::NotYet, .. } = head {
            self.output.remark(&format!(
                "{} shows no head that enough replicas have co-signed: what it says is not known to be final",
                client.url()
            ));
        }
        Ok(())
    }

    /// The ledger that was named: of a replica if one was named and answers, else in a directory or bundle.
    pub fn source(&self) -> Result<Source, Failure> {
        let Places { ledger, connect, .. } = Places::find(&self.global)?;
        match (connect.as_slice(), ledger) {
            ([], None) => Err(Failure::new(Exit::Usage, "no ledger is given to read").next(
                "name a replica's directory or a bundle with --ledger PATH, or a running replica with --connect URL \
                 and --identity DIR, or run the command below a folder with fedledger.toml",
            )),
            ([], Some(path)) => Ok(Source::open(&path)?),
            (urls @ [url, others @ ..], ledger) => {
                let identity = self.identity()?;
                match (self.block_on(ApiClient::connect_any(urls, &identity)), ledger) {
                    (Ok(client), _) => {
                        self.check_head(&client)?;
                        let replica = RemoteSource::new(client, self.runtime.handle().clone());
                        Ok(Source::Replica(Box::new(replica)))
                    }
                    (Err(error), Some(path)) if error.is_silence() => {
                        let others = if others.is_empty() { "" } else { ", nor do the others" };
                        self.output.remark(&format!("{url} does not answer{others}, so {} is read", path.display()));
                        Ok(Source::open(&path)?)
                    }
                    (Err(error), _) => Err(error.into()),
                }
            }
        }
    }

    /// The ledger that was named, replayed.
    pub fn history(&self, keep: Keep) -> Result<(Source, History), Failure> {
        let source = self.source()?;
        let progress = self.output.progress("reading the ledger");
        let history = History::read(&source, keep, self.threads())?;
        drop(progress);
        Ok((source, history))
    }
}

/// The text of a file that people write.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = read_file(path, TEXT_SIZE_BYTES_MAX)?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(Exit::Failed, format!("{} is no text: save it as UTF-8", path.display())))
}

/// A file of at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes));
    read.map_err(|error| Failure::io("read", path, &error))?;
    if bytes.len() as u64 > limit {
        let what =
            format!("{} has more than {limit} bytes: no file of the kind that is wanted here has", path.display());
        return Err(Failure::new(Exit::Failed, what));
    }
    Ok(bytes)
}
