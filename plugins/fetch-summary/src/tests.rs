use super::*;
use agentry_sdk::json;
use agentry_sdk::llm::{Assistant, Message};
use std::cell::RefCell;

/// A web of one page.
struct Page(Result<http::Response, http::Error>);

impl Web for Page {
    fn send(&self, _: &http::Request) -> Result<http::Response, http::Error> {
        self.0.clone()
    }
}

/// A model with one answer, which keeps what it was asked.
struct Says {
    reply: Result<Reply, llm::Error>,
    asked: RefCell<Vec<Request>>,
}

impl Model for Says {
    fn chat(&self, request: &Request) -> Result<Reply, llm::Error> {
        self.asked.borrow_mut().push(request.clone());
        self.reply.clone()
    }
}

fn page(status: u16, headers: &[(&str, &str)], body: &str) -> Page {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Page(Ok(http::Response { status, headers, body: body.into(), request: "GET https://example.com/bread".into() }))
}

fn says(text: &str) -> Says {
    let reply = Reply {
        message: Assistant { text: Some(text.into()), tool_calls: Vec::new() },
        wants_tools: false,
        model: "m-1".into(),
        usage: llm::Usage { input_tokens: 100, output_tokens: 20 },
    };
    Says { reply: Ok(reply), asked: RefCell::default() }
}

const HTML: [(&str, &str); 1] = [("content-type", "text/html; charset=utf-8")];
const ANSWER: &str = r#"{"title": "Bread", "summary": "How to bake it.", "points": ["Mix", "Bake"]}"#;

fn run(page: &Page, model: &Says) -> Result<Output, Failure> {
    let input = Input { url: "https://example.com/bread".into(), max_words: None };
    summarise(&Task::default(), input, page, model)
}

/// Whether the failure is retried, and its code; the model was not asked.
fn refused(page: &Page) -> (bool, String, String) {
    let model = says(ANSWER);
    let failure = run(page, &model).unwrap_err();
    assert!(model.asked.borrow().is_empty(), "nothing to ask about");
    match failure {
        Failure::Retry { message, code: Some(code), .. } => (true, code, message),
        Failure::Permanent { message, code: Some(code), .. } => (false, code, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_is_fetched_and_summarised() {
    let model = says(ANSWER);
    let html = "<title>Bread &amp; butter</title><script>no()</script><h1>Bread</h1><p>Mix, then bake.";
    let output = run(&page(200, &HTML, html), &model).unwrap();
    let expected = Output {
        url: "https://example.com/bread".into(),
        status: 200,
        title: "Bread".into(),
        summary: "How to bake it.".into(),
        points: vec!["Mix".into(), "Bake".into()],
        cut: false,
        usage: Usage { input_tokens: 100, output_tokens: 20 },
        model: "m-1".into(),
    };
    assert_eq!(output, expected);
    let asked = model.asked.borrow();
    let Message::User(user) = &asked[0].messages[1] else { panic!("no page") };
    assert!(user.contains("Title: Bread & butter\n\nBread\nMix, then bake."), "{user}");
    assert!(!user.contains("no()"), "{user}");
    assert!(user.contains(&Task::default().id), "the mark is the task's own");
}

#[test]
fn plain_text_is_a_page_too() {
    let model = says(ANSWER);
    run(&page(200, &[("content-type", "text/plain")], "<b> is a tag"), &model).unwrap();
    let asked = model.asked.borrow();
    assert!(matches!(&asked[0].messages[1], Message::User(user) if user.contains("<b> is a tag")));
}

#[test]
fn a_page_that_is_gone_is_permanent_and_one_that_is_busy_is_retried_when_it_says() {
    let (retried, code, message) = refused(&page(404, &HTML, "Not found"));
    assert_eq!(
        (retried, code.as_str(), message.as_str()),
        (false, "http_404", "GET https://example.com/bread answered 404")
    );
    let busy = page(503, &[("retry-after", "30")], "");
    assert_eq!(refused(&busy).1, "http_503");
    let failure = run(&busy, &says(ANSWER)).unwrap_err();
    assert!(matches!(failure, Failure::Retry { after: Some(after), .. } if after == Duration::from_secs(30)));
    let (retried, code, message) = refused(&page(301, &[("location", "https://example.com/new")], ""));
    assert_eq!((retried, code.as_str()), (false, "http_301"));
    assert!(message.ends_with("to https://example.com/new"), "{message}");
}

#[test]
fn what_cannot_be_fetched_ends_as_its_kind_says() {
    let why = || "why".to_owned();
    for (error, retried, code) in [
        (http::Error::Denied(why()), false, "denied"),
        (http::Error::TooLarge(why()), false, "too_large"),
        (http::Error::TimedOut(why()), true, "timed_out"),
        (http::Error::Dns(why()), true, "dns"),
    ] {
        assert_eq!(refused(&Page(Err(error))), (retried, code.into(), why()));
    }
    let failure = run(&Page(Err(http::Error::Invalid(why()))), &says(ANSWER)).unwrap_err();
    assert_eq!(failure, Failure::invalid_input("why").with_pointer("/url"));
}

#[test]
fn what_is_no_text_is_permanent() {
    let (retried, code, message) = refused(&page(200, &[("content-type", "image/png")], ""));
    assert_eq!((retried, code.as_str()), (false, "unsupported_content"));
    assert!(message.contains("image/png"), "{message}");
    let empty = page(200, &HTML, "<title>App</title><script>render()</script>");
    assert_eq!(refused(&empty).1, "empty_page");
}

#[test]
fn an_answer_that_is_no_summary_is_a_failure() {
    let bread = page(200, &HTML, "Bread");
    for wrong in ["Bread is good.", "{}", r#"{"title": "a", "summary": "b", "points": "c"}"#] {
        let failure = run(&bread, &says(wrong)).unwrap_err();
        assert!(matches!(&failure, Failure::Permanent { code: Some(code), .. } if code == "unparsable"), "{failure:?}");
    }
    let blocked = Says { reply: Err(llm::Error::Blocked("no".into())), asked: RefCell::default() };
    assert_eq!(run(&bread, &blocked), Err(Failure::permanent("no").with_code("blocked")));
    let busy = llm::Error::RateLimited { message: "slow down".into(), after: Some(Duration::from_secs(2)) };
    let busy = Says { reply: Err(busy), asked: RefCell::default() };
    let failure = Failure::retry("slow down").with_code("rate_limited").with_after(Duration::from_secs(2));
    assert_eq!(run(&bread, &busy), Err(failure));
}

#[test]
fn an_input_out_of_range_is_refused_with_the_place() {
    for words in [0, 19, 1_001] {
        let input = Input { url: "https://example.com".into(), max_words: Some(words) };
        let failure = summarise(&Task::default(), input, &page(200, &HTML, "a"), &says(ANSWER)).unwrap_err();
        assert!(matches!(&failure, Failure::InvalidInput { pointer: Some(place), .. } if place == "/max_words"));
    }
    assert!(json::read::<Input>(r#"{"url": "https://example.com", "words": 3}"#).is_err());
}

#[test]
fn outside_a_component_there_is_no_web() {
    let input = json::read::<Input>(r#"{"url": "https://example.com"}"#).unwrap();
    let failure = handle(&Task::default(), input).unwrap_err();
    assert!(matches!(failure, Failure::Permanent { message, .. } if message.contains("inside a component")));
}
