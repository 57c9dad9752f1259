//! What is refused before anything is sent.

use super::*;

/// A request that has everything.
fn good() -> ChatRequest {
    let call = ToolCall { id: "c1".into(), name: "clock".into(), arguments: "{}".into(), opaque: None };
    let result = ToolResult { id: "c1".into(), name: "clock".into(), content: String::new(), failed: false };
    let parameters = r#"{"type": "object"}"#.to_owned();
    ChatRequest {
        model: "default".into(),
        messages: vec![
            Message::User("hi".into()),
            Message::Assistant(Assistant { text: None, tool_calls: vec![call] }),
            Message::Tool(result),
        ],
        tools: vec![Tool { name: "clock".into(), description: String::new(), parameters }],
        tool_choice: Some(ToolChoice::Named("clock".into())),
        temperature: Some(0.0),
        stop: ["a", "b", "c", "d"].map(str::to_owned).into(),
        ..ChatRequest::default()
    }
}

fn check(change: impl FnOnce(&mut ChatRequest)) -> Result<(), ChatError> {
    let mut request = good();
    change(&mut request);
    let schema = match &request.response_format {
        ResponseFormat::JsonSchema { schema, .. } => Some(schema::compile(schema)),
        ResponseFormat::Text | ResponseFormat::Json => None,
    };
    Prompt::check(&request, &model(10), schema, "openai:").map(|_| ())
}

fn refused(why: &str, change: impl FnOnce(&mut ChatRequest)) {
    match check(change) {
        Err(ChatError::InvalidRequest { reason }) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{why}: {other:?}"),
    }
}

fn said(request: &mut ChatRequest) -> &mut Assistant {
    match &mut request.messages[1] {
        Message::Assistant(said) => said,
        _ => panic!("the second message is the assistant's"),
    }
}

fn result(request: &mut ChatRequest) -> &mut ToolResult {
    match &mut request.messages[2] {
        Message::Tool(result) => result,
        _ => panic!("the third message is a tool's"),
    }
}

#[test]
fn a_good_request_is_taken() {
    assert_eq!(check(|_| {}), Ok(()));
    // Without tools these two mean nothing, and harm nothing.
    for choice in [ToolChoice::Auto, ToolChoice::None] {
        let change = |request: &mut ChatRequest| {
            request.tools.clear();
            request.tool_choice = Some(choice);
        };
        assert_eq!(check(change), Ok(()));
    }
}

#[test]
fn a_conversation_has_to_be_one() {
    refused("messages are empty", |request| request.messages.clear());
    refused("nothing but system", |request| request.messages = vec![Message::System("x".into())]);
    refused("messages[1], of the assistant, has neither", |request| *said(request) = Assistant::default());
    refused("messages[1], of the assistant, has neither", |request| {
        *said(request) = Assistant { text: Some(String::new()), tool_calls: Vec::new() };
    });
    refused("arguments of call \"c1\"", |request| said(request).tool_calls[0].arguments = "[]".into());
    refused("arguments of call \"c1\"", |request| said(request).tool_calls[0].arguments = String::new());
    refused("without an id", |request| said(request).tool_calls[0].id = String::new());
    refused("\"no name\" is not 1 to 64", |request| said(request).tool_calls[0].name = "no name".into());
}

#[test]
fn a_result_has_to_be_of_a_call_before_it() {
    refused("call \"c2\", which nobody made", |request| result(request).id = "c2".into());
    refused("the result of \"weather\"", |request| result(request).name = "weather".into());
    refused("which nobody made", |request| request.messages.swap(1, 2));
}

#[test]
fn a_name_has_up_to_64_characters() {
    let change = |request: &mut ChatRequest| {
        request.tools[0].name = "a".repeat(64);
        request.tool_choice = None;
    };
    assert_eq!(check(change), Ok(()));
}

#[test]
fn tools_have_names_and_schemas_that_every_provider_takes() {
    for name in ["", "a b", "ä", "a.b", &"a".repeat(65)] {
        refused("is not 1 to 64 letters", |request| request.tools[0].name = name.into());
    }
    refused("are no JSON:", |request| request.tools[0].parameters = "{".into());
    for parameters in ["[]", "true", r#"{"type": "string"}"#] {
        refused("type object", |request| request.tools[0].parameters = parameters.into());
    }
    refused("two tools \"clock\"", |request| request.tools.push(request.tools[0].clone()));
    refused("on offer: clock", |request| request.tool_choice = Some(ToolChoice::Named("weather".into())));
    refused("there are no tools", |request| {
        request.tools.clear();
        request.tool_choice = Some(ToolChoice::Required);
    });
}

#[test]
fn options_have_their_ranges() {
    for temperature in [-0.1, f32::NAN, f32::INFINITY] {
        refused("temperature is", |request| request.temperature = Some(temperature));
    }
    refused("max-tokens is 0", |request| request.max_tokens = Some(0));
    refused("stop has 5 texts; at most 4", |request| request.stop.push("e".into()));
    refused("empty text", |request| request.stop[0].clear());
    let schema = |name: &str, schema: &str| ResponseFormat::JsonSchema { name: name.into(), schema: schema.into() };
    refused("the schema's name \"a b\"", |request| request.response_format = schema("a b", "{}"));
    refused("the schema \"sum\" is no JSON", |request| request.response_format = schema("sum", "{"));
}
