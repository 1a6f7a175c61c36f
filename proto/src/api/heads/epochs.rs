//! The epochs that a replica shows to have followed.

use fedledger_ledger::{
    epoch::{EPOCH_CHAIN_SIZE_BYTES_MAX, EPOCH_LINKS_MAX, EpochLink},
    receipt::Receipt,
};
use tokio::time::timeout;

use crate::api::{
    ApiClient, ApiError,
    limits::{EPOCH_LINK_SIZE_BYTES_MAX, READ_TIMEOUT},
    v1,
};

impl ApiClient {
    /// The links of the chain of epochs after the epoch with this number (0 is that of the genesis file), as the replica has
    /// them. They are for [`Epochs::extend`](fedledger_ledger::epoch::Epochs::extend) to check. The call shows no head and
    /// its answer is not held against one: each link stands by its own signatures.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn epoch_links(&self, after: u64) -> Result<Vec<EpochLink>, ApiError> {
        let request = self.request(v1::EpochsRequest { after }, READ_TIMEOUT);
        let mut ledger = self.ledger().max_decoding_message_size(EPOCH_LINK_SIZE_BYTES_MAX);
        let mut stream = self.answer(ledger.epochs(request).await, READ_TIMEOUT)?;
        let (mut links, mut received) = (Vec::new(), 0usize);
        loop {
            let late = |_| ApiError::TimedOut { url: self.url().to_owned(), after: READ_TIMEOUT };
            let next = timeout(READ_TIMEOUT, stream.message()).await.map_err(late)?;
            let Some(link) = next.map_err(|status| self.failed(&status, READ_TIMEOUT))? else { return Ok(links) };
            received = received.saturating_add(link.epoch.len() + link.leaf.len() + link.receipt.len());
            if links.len() >= EPOCH_LINKS_MAX || received > EPOCH_CHAIN_SIZE_BYTES_MAX {
                return Err(self.invalid("the chain of epochs is longer than any can be"));
            }
            let receipt = Receipt::parse(&link.receipt).map_err(|_| self.invalid("a link's receipt is malformed"))?;
            links.push(EpochLink { epoch: link.epoch.into(), leaf: link.leaf.into(), receipt });
        }
    }

    /// Goes on to the epochs that the replica shows to have followed; false if there is none.
    pub(super) async fn learn_epochs(&self) -> Result<bool, ApiError> {
        let links = self.epoch_links(self.heads.epoch()).await?;
        self.heads.extend(links).map_err(|error| self.no_head(&error))
    }
}
