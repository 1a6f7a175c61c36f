//! The one way of every call: it shows the head that is known, and the answer must go on from there.

use std::{sync::Arc, time::Duration};

use fedledger_ledger::{Digest, checkpoint::Checkpoint, note::SignedNote};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Conflict, SeenHead, Vouched, check_extension, watch::Known};
use crate::api::{
    ApiClient, ApiCode, ApiError,
    limits::READ_TIMEOUT,
    metadata::{HeadAnswer, HeadId, NewerHead},
    v1,
};

impl ApiClient {
    /// Asks for the newest head, checks that it goes on from the last one that was seen, and remembers it if it is final. The
    /// replica gets to see the note of that one, so that it can keep evidence; and the epochs since the genesis file are
    /// brought up to date.
    ///
    /// # Errors
    ///
    /// [`ApiError`]; [`ApiError::Conflict`] carries both notes, which belong into the hands of the other members.
    pub async fn check_head(&self) -> Result<SeenHead, ApiError> {
        let known = self.heads.known();
        let (note, proof) = self.shown(known.as_deref()).await?;
        let Some(note) = note else { return Ok(SeenHead::Nothing) };
        // A replica with another history has other epochs, perhaps; that history is what to tell first.
        self.agree(known.as_deref(), &note, proof.as_deref()).await?;
        self.learn_epochs().await?;
        self.follow(known.as_deref(), note, proof).await
    }

    /// Makes a call that shows the known head, and checks what the answer says of the replica's.
    pub(in crate::api) async fn call<T, R, F>(
        &self,
        message: T,
        timeout: Duration,
        send: impl FnOnce(Request<T>) -> F,
    ) -> Result<R, ApiError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let known = self.heads.known();
        let mut request = self.request(message, timeout);
        known.as_ref().map_or_else(HeadId::empty, |known| known.id()).show(request.metadata_mut());
        match send(request).await {
            Ok(response) => {
                let (metadata, message, _) = response.into_parts();
                self.check_answer(known.as_deref(), &metadata).await?;
                Ok(message)
            }
            Err(status) => Err(self.refused(known.as_deref(), self.failed(&status, timeout)).await),
        }
    }

    /// Checks what an answer says of the replica's head. Where nothing has changed there is nothing to do.
    async fn check_answer(&self, known: Option<&Known>, metadata: &MetadataMap) -> Result<(), ApiError> {
        let answer = self.valid(HeadAnswer::read(metadata))?;
        let answer = answer.ok_or_else(|| self.invalid("it does not say which head of the log it has"))?;
        let shown = known.map_or_else(HeadId::empty, Known::id);
        // A replica may lag: it has compared the known head with its own log as far as that goes.
        if answer.head == shown || answer.head.size < shown.size {
            return Ok(());
        }
        let (note, proof) = match answer.newer {
            Some(NewerHead { note, consistency }) => (SignedNote::parse(&note).ok(), Some(consistency)),
            None => self.shown(known).await?,
        };
        let withheld = || self.invalid("it does not show the head of the log that it says it has");
        let note = note.ok_or_else(withheld)?;
        if self.head(&note)?.size() < answer.head.size {
            return Err(withheld());
        }
        self.follow(known, note, proof).await.map(drop)
    }

    /// Asks for the newest head, and shows the note of the known one.
    async fn shown(&self, known: Option<&Known>) -> Result<(Option<SignedNote>, Option<Vec<Digest>>), ApiError> {
        match self.newest(known.map(|known| &known.note)).await {
            Err(error) => Err(self.refused(known, error).await),
            shown => shown,
        }
    }

    /// [`ApiClient::checkpoint_since`] without a check of the answer, which is checked by whoever asks.
    async fn newest(&self, known: Option<&SignedNote>) -> Result<(Option<SignedNote>, Option<Vec<Digest>>), ApiError> {
        let request = self.request(v1::CheckpointRequest { known: known.map(ToString::to_string) }, READ_TIMEOUT);
        self.note_and_proof(self.answer(self.ledger().checkpoint(request).await, READ_TIMEOUT)?)
    }

    /// Takes a head that the replica shows, if it goes on from the known one.
    async fn follow(
        &self,
        known: Option<&Known>,
        note: SignedNote,
        proof: Option<Vec<Digest>>,
    ) -> Result<SeenHead, ApiError> {
        let served = self.agree(known, &note, proof.as_deref()).await?;
        // A head for which too few stand must not push out one for which enough do.
        if !self.is_final(&served, &note).await? {
            return Ok(SeenHead::Consistent { newer: None, vouched: Vouched::NotYet });
        }
        let is_newer = known.is_none_or(|known| known.head.size() < served.size());
        if let Err(current) = self.heads.take(known, served.clone(), note.clone()) {
            self.follow_current(&served, &note, current).await?;
        }
        Ok(SeenHead::Consistent { newer: is_newer.then_some(note), vouched: Vouched::Final })
    }

    /// Compares the replica with a head that another call has brought meanwhile, perhaps from another replica. The next call
    /// goes on from that one.
    async fn follow_current(
        &self,
        served: &Checkpoint,
        note: &SignedNote,
        current: Arc<Known>,
    ) -> Result<(), ApiError> {
        if current.head.size() == served.size() {
            return match current.head.root() == served.root() {
                true => Ok(()),
                false => {
                    let reason = "two final heads of one size have come at once".to_owned();
                    Err(self.conflict(&current, served, note, None, reason).await)
                }
            };
        }
        // The replica compares the head with its own log and refuses if that contradicts it; so what it answers agrees.
        let (newest, proof) = self.shown(Some(&current)).await?;
        match newest {
            Some(newest) if self.head(&newest)?.size() >= current.head.size() => {
                self.agree(Some(&current), &newest, proof.as_deref()).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The head that a note is about, if it goes on from the known one.
    async fn agree(
        &self,
        known: Option<&Known>,
        note: &SignedNote,
        proof: Option<&[Digest]>,
    ) -> Result<Checkpoint, ApiError> {
        let served = self.head(note)?;
        if let Some(known) = known
            && let Err(reason) = check_extension(&known.head, &served, proof)
        {
            return Err(self.conflict(known, &served, note, proof, reason).await);
        }
        Ok(served)
    }

    /// Whether a head is final, by the epochs that are known or that the replica shows to have followed.
    async fn is_final(&self, head: &Checkpoint, note: &SignedNote) -> Result<bool, ApiError> {
        let is_final = || self.heads.is_final(head, note).map_err(|error| self.no_head(&error));
        Ok(is_final()? || (self.learn_epochs().await? && is_final()?))
    }

    /// The head that a note is about, if it is one of this log.
    fn head(&self, note: &SignedNote) -> Result<Checkpoint, ApiError> {
        let head = Checkpoint::parse(note.text()).map_err(|error| self.no_head(&error))?;
        let expected = self.heads.origin();
        if head.origin() == expected {
            return Ok(head);
        }
        let reason = format!("it is of the log {:?}, expected {expected:?}", head.origin());
        Err(ApiError::Head { url: self.url().to_owned(), reason })
    }

    pub(super) fn no_head(&self, error: &dyn std::error::Error) -> ApiError {
        ApiError::Head { url: self.url().to_owned(), reason: error.to_string() }
    }

    /// What it means that a call failed: the replica may say itself that its log is another one.
    async fn refused(&self, known: Option<&Known>, error: ApiError) -> ApiError {
        let (Some(known), ApiError::Refused(refused)) = (known, &error) else { return error };
        if refused.code != ApiCode::Contradicts {
            return error;
        }
        let Ok((Some(note), _)) = self.newest(None).await else { return error };
        match self.head(&note) {
            Ok(served) => self.conflict(known, &served, &note, None, refused.message.clone()).await,
            Err(error) => error,
        }
    }

    /// Keeps what contradicts each other.
    async fn conflict(
        &self,
        known: &Known,
        served: &Checkpoint,
        note: &SignedNote,
        proof: Option<&[Digest]>,
        reason: String,
    ) -> ApiError {
        let words = |head: &Checkpoint| format!("{} of {} entries", head.root(), head.size());
        let evidence = self.evidence(known, served, note, proof).await;
        let kept = self.heads.keep_conflict(&known.note, note, evidence.as_ref());
        ApiError::Conflict(Box::new(Conflict {
            url: self.url().to_owned(),
            known: words(&known.head),
            served: words(served),
            reason,
            known_note: Box::new(known.note.clone()),
            served_note: Box::new(note.clone()),
            evidence: evidence.map(Box::new),
            kept,
        }))
    }
}
