//! Whatever a provider may answer by what it has published is an answer or an error of its own. What it publishes in a newer SDK has
//! no row here yet, and fails by name: say what it means, here and in the shape.

use super::{KINDS, Providers};
use crate::site::*;
use Told::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi, OpenAiResponses};
use agentry_outbound::llm::*;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The words, whole.
    Answer,
    /// A call, whole.
    Calls,
    Truncated,
    Blocked,
    Unparsable,
    Invalid,
    TooLong,
    Limited,
    Unavailable,
}

/// What each case means. `/full`, `/nulls` and `/bare` mean the same as the case before them.
fn rows(kind: ProviderKind) -> Vec<(Told, &'static str)> {
    match kind {
        OpenAiResponses => unreachable!("its SDK's types are not among the peers"),
        OpenAi => vec![
            (Answer, "finish/stop usage/full calls/none"),
            (Calls, "finish/tool_calls finish/function_call call/function calls"),
            (Truncated, "finish/length"),
            (Blocked, "finish/content_filter refusal error/misalignment"),
            (Unparsable, "audio call/custom call/custom/mixed"),
            (Invalid, "error/400 error/422"),
            (Limited, "error/429"),
            (Unavailable, "error/401 error/403 error/404 error/409 error/500 error/503"),
        ],
        Anthropic => vec![
            (
                Answer,
                "finish/end_turn finish/stop_sequence usage/full block/text block/thinking block/redacted_thinking",
            ),
            (Calls, "finish/tool_use block/tool_use block/tool_use/tool_use calls"),
            (Truncated, "finish/max_tokens finish/model_context_window_exceeded"),
            (Blocked, "finish/refusal refusal/cyber refusal/bio refusal/frontier_llm refusal/reasoning_extraction"),
            (Blocked, "refusal/general_harms"),
            // What is there is judged, not how it ends.
            (Answer, "finish/none calls/none"),
            (Answer, "block/text/tool_use block/thinking/tool_use block/redacted_thinking/tool_use"),
            (Unparsable, "finish/pause_turn"),
            (Unparsable, "block/server_tool_use block/server_tool_use/tool_use"),
            (Unparsable, "block/web_search_tool_result block/web_search_tool_result/tool_use"),
            (Unparsable, "block/web_fetch_tool_result block/web_fetch_tool_result/tool_use"),
            (Unparsable, "block/code_execution_tool_result block/code_execution_tool_result/tool_use"),
            (Unparsable, "block/bash_code_execution_tool_result block/bash_code_execution_tool_result/tool_use"),
            (Unparsable, "block/text_editor_code_execution_tool_result"),
            (Unparsable, "block/text_editor_code_execution_tool_result/tool_use"),
            (Unparsable, "block/tool_search_tool_result block/tool_search_tool_result/tool_use"),
            (Unparsable, "block/container_upload block/container_upload/tool_use"),
            (Invalid, "error/invalid_request_error code/request_body_encoding_invalid"),
            (Invalid, "code/request_body_encoding_unsupported"),
            (TooLong, "code/request_body_too_large_after_decoding"),
            (Limited, "error/rate_limit_error code/ramp_limit_exceeded"),
            (Unavailable, "error/authentication_error error/billing_error error/permission_error"),
            (Unavailable, "error/not_found_error error/timeout_error error/api_error error/overloaded_error"),
            (Unavailable, "error/conflict_error error/memory_path_conflict_error"),
            (Unavailable, "error/memory_precondition_failed_error"),
            (Unavailable, "code/contract_spend_limit_reached code/enforced_spend_limit_reached"),
            (Unavailable, "code/linked_organization_billing_unavailable"),
            (Unavailable, "code/linked_organization_spend_limit_reached"),
            (Unavailable, "code/organization_on_hold code/organization_type_not_supported"),
            (Unavailable, "code/parent_organization_required code/sandbox_egress_restricted"),
            (Unavailable, "code/claude_code_key_creator_not_member code/claude_code_version_too_old"),
            (Unavailable, "code/cmek_context_unavailable code/cmek_key_disabled code/cmek_key_network_blocked"),
            (Unavailable, "code/cmek_key_unreachable"),
        ],
        Gemini => vec![
            (Answer, "finish/STOP usage/full part/text part/thought part/thought_signature part/part_metadata"),
            (Answer, "part/video_metadata part/speech_metadata part/document_metadata part/spreadsheet_metadata"),
            (Answer, "part/audio_metadata part/media_resolution part/media_processing"),
            (Calls, "part/function_call calls"),
            (Truncated, "finish/MAX_TOKENS finish/CONTINUATION"),
            (Blocked, "finish/SAFETY finish/RECITATION finish/LANGUAGE finish/BLOCKLIST finish/PROHIBITED_CONTENT"),
            (Blocked, "finish/SPII finish/ESCALATION finish/MODEL_ARMOR finish/IMAGE_SAFETY"),
            (Blocked, "finish/IMAGE_PROHIBITED_CONTENT finish/IMAGE_RECITATION"),
            (Blocked, "blocked/BLOCKED_REASON_UNSPECIFIED blocked/SAFETY blocked/OTHER blocked/BLOCKLIST"),
            (Blocked, "blocked/PROHIBITED_CONTENT blocked/IMAGE_SAFETY blocked/MODEL_ARMOR blocked/JAILBREAK"),
            (Unparsable, "finish/FINISH_REASON_UNSPECIFIED finish/OTHER finish/MALFORMED_FUNCTION_CALL"),
            (Unparsable, "finish/UNEXPECTED_TOOL_CALL finish/TOO_MANY_TOOL_CALLS finish/MISSING_THOUGHT_SIGNATURE"),
            (Unparsable, "finish/MALFORMED_RESPONSE finish/IMAGE_OTHER finish/NO_IMAGE candidates/none call/begun"),
            (Unparsable, "part/code_execution_result part/executable_code part/file_data part/function_response"),
            (Unparsable, "part/inline_data part/tool_call part/tool_response part/audio_transcription"),
            (Invalid, "error/INVALID_ARGUMENT error/OUT_OF_RANGE"),
            (Limited, "error/RESOURCE_EXHAUSTED"),
            (Unavailable, "finish/PUP_LIMITED_DISABLED error/FAILED_PRECONDITION error/UNAUTHENTICATED"),
            (Unavailable, "error/PERMISSION_DENIED error/NOT_FOUND error/ABORTED error/ALREADY_EXISTS"),
            (Unavailable, "error/CANCELLED error/INTERNAL error/UNKNOWN error/DATA_LOSS error/UNIMPLEMENTED"),
            (Unavailable, "error/UNAVAILABLE error/DEADLINE_EXCEEDED"),
        ],
    }
}

/// What a case means by the rows; the case that it is a form of, where it has no row of its own.
fn row<'a>(rows: &[(Told, &'a str)], case: &str) -> Option<(Told, &'a str)> {
    let named = |wanted: &str| {
        rows.iter().find_map(|(told, names)| Some((*told, names.split(' ').find(|name| *name == wanted)?)))
    };
    let base = ["/full", "/nulls", "/bare", "/mixed"].iter().find_map(|form| case.strip_suffix(form));
    // What says nothing is no answer, however it ended.
    match (named(case), base.and_then(named)) {
        (None, Some((Answer, name))) if case.ends_with("/bare") => Some((Unparsable, name)),
        (own, base) => own.or(base),
    }
}

fn told(outcome: &Result<ChatReply, ChatFailure>) -> Told {
    match outcome {
        Ok(reply) if reply.wants_tools => Calls,
        Ok(_) => Answer,
        Err(failure) => match &failure.error {
            ChatError::Truncated { .. } => Truncated,
            ChatError::Blocked { .. } => Blocked,
            ChatError::Unparsable { .. } => Unparsable,
            ChatError::InvalidRequest { .. } => Invalid,
            ChatError::TooLong { .. } => TooLong,
            ChatError::RateLimited { .. } => Limited,
            ChatError::Unavailable { .. } => Unavailable,
            other => panic!("{other}"),
        },
    }
}

#[tokio::test]
async fn whatever_a_provider_has_published_is_an_answer_or_an_error_of_its_own() {
    const SAID: &str = "There was no error, only rain.";
    let providers = Providers::get();
    let cases = providers.cases().await;
    let mut wrong = Vec::new();
    for kind in KINDS {
        let rows = rows(kind.0);
        let mut left: Vec<&str> = rows.iter().flat_map(|(_, names)| names.split(' ')).collect();
        for case in cases[kind.1].as_array().unwrap().iter().filter_map(|case| case.as_str()) {
            if case == "form" {
                continue; // for the requests
            }
            let Some((expected, name)) = row(&rows, case) else {
                wrong.push(format!("{} has published {case}, and nothing here says what it means", kind.1));
                continue;
            };
            left.retain(|other| *other != name);
            let outcome = providers.llm(kind, case).chat(&with_tools(), soon()).await;
            let got = told(&outcome);
            let place = format!("{} {case}", kind.1);
            if got != expected {
                wrong.push(format!("{place} is {expected:?}, and was told as {got:?}: {outcome:?}"));
            }
            let (message, usage) = match &outcome {
                Ok(reply) => (reply.message.clone(), reply.usage),
                Err(failure) => {
                    let known = !failure.error.to_string().contains("not known here");
                    assert!(known, "{place}: {}", failure.error);
                    (Assistant::default(), failure.usage)
                }
            };
            let of_error = case.starts_with("error/") || case.starts_with("code/");
            let usage = (usage.input, usage.output);
            assert!(of_error || case == "usage/full" || usage == (19, 10), "{place}: {usage:?}");
            if got == Answer {
                assert!(message.text.is_some_and(|text| text.starts_with(SAID)), "{place}");
            } else if got == Calls {
                let calls: Vec<_> = message.tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
                assert!(calls.iter().all(|call| *call == ("weather", r#"{"city":"Oslo"}"#)), "{place}: {calls:?}");
            }
        }
        wrong.extend(left.iter().map(|name| format!("{} has no {name} any more", kind.1)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn usage_is_counted_with_all_that_was_read_and_thought() {
    let providers = Providers::get();
    // Every count that there is, is 3: of Anthropic's input there are three, of Gemini's input and output two each.
    for (kind, expected) in KINDS.into_iter().zip([(3, 3), (9, 3), (6, 6)]) {
        let reply = providers.llm(kind, "usage/full").chat(&question(), soon()).await.unwrap();
        assert_eq!((reply.usage.input, reply.usage.output), expected, "{}", kind.1);
    }
}

#[tokio::test]
async fn a_limit_that_no_pause_helps_is_not_asked_again() {
    let providers = Providers::get();
    for (case, tries) in [("error/rate_limit_error", 2), ("code/contract_spend_limit_reached", 1)] {
        let mut provider = provider(Anthropic, ([127, 0, 0, 1], 1).into());
        provider.url = providers.root(KINDS[1], case).parse().unwrap();
        provider.retries = 1;
        let failure = llm(provider).chat(&question(), soon()).await.unwrap_err();
        assert_eq!(failure.trace.tries, tries, "{case}: {}", failure.error);
    }
}
