//! What the codes of reasons mean, for people; programs get the codes alone.

/// A reason as people read it: a code with what it means, and a person's own words as they are.
pub(crate) fn explained(reason: &str) -> String {
    meaning(reason).map_or_else(|| reason.to_owned(), |meaning| format!("{reason}: {meaning}"))
}

/// What a code says of an attempt, a contribution or a member; none if it is none.
fn meaning(code: &str) -> Option<&'static str> {
    Some(match code {
        "below_quorum" => "the contributions do not meet the plan's quorum",
        "base_moved" => "the branch was moved away from the version that was trained on",
        "plan_stopped" => "the plan was stopped",
        "version_rejected" => "a majority of the replicas computed another version than was proposed",
        "version_revoked" => "the same contributions lead to a version that was revoked",
        "aggregation_failed" => "the contributions cannot be aggregated",
        "too_many_excluded" => "more contributions had to be left out than a transaction can name",
        "unattested" => "no majority of replicas could compute the version",
        "blob_lost" => "no replica could obtain the file in time",
        "unchecked" => "the update was still being fetched or checked when its time was over",
        "late" => "it came after the contributions that were counted",
        "wrong_digest" => "the file is not the one that was announced",
        "wrong_length" => "the file has another length than the plan's architecture gives",
        "wrong_tensors" => "the file's tensors are not those of the plan's architecture",
        "wrong_examples" => "the number of examples is not one that the plan weighs",
        "not_finite" => "the update has values that are infinite or no numbers",
        "out_of_range" => "the update has values that are too large to be summed",
        "not_joined" => "it never joined",
        "not_contributed" => "it joined and did not contribute in time",
        "revoked" => "the members excluded it, or took its role",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_explained_and_words_are_left_alone() {
        assert_eq!(
            explained("base_moved"),
            "base_moved: the branch was moved away from the version that was trained on"
        );
        assert_eq!(explained("the ward is moved"), "the ward is moved");
    }
}
