//! The routes and the page that describes them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::telemetry::labels;

#[test]
fn the_description_and_the_code_know_the_same_routes() {
    let page: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let paths = page["paths"].as_object().unwrap();
    let methods = ["get", "put", "post", "delete", "patch"];
    let described: BTreeSet<(String, &str)> = paths
        .iter()
        .flat_map(|(path, of)| {
            methods.into_iter().filter(|method| of.get(method).is_some()).map(move |method| (method.to_uppercase(), &**path))
        })
        .collect();
    let known: BTreeSet<(String, &str)> = ROUTES.into_iter().map(|(method, path, _)| (method.to_owned(), path)).collect();
    assert_eq!(described, known);
    for (path, of) in paths {
        for operation in methods.into_iter().filter_map(|method| of.get(method)) {
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.contains_key("401") && answers.contains_key("403"), "{path} does not say who may ask");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{path} does not say what it does");
            assert_eq!(operation.get("requestBody").is_some(), answers.contains_key("413"), "{path}: a body has a bound");
        }
        assert_eq!(path.contains("{id}"), of.to_string().contains("parameters/"), "{path}");
    }
    // Every reference leads somewhere.
    for reference in page.to_string().split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(page.pointer(reference).is_some(), "{reference}");
    }
}

#[test]
fn every_action_has_its_label() {
    let actions: Vec<&str> = ROUTES.into_iter().map(|(.., action)| action).filter(|action| *action != LOOKS).collect();
    assert!(ROUTES.into_iter().all(|(method, _, action)| (method == "GET") == (action == LOOKS)));
    assert_eq!([&actions[..], &[labels::UNKNOWN_ACTION]].concat(), labels::ADMIN_ACTIONS);
}

#[test]
fn of_what_was_found_only_so_much_is_told_as_helps() {
    assert_eq!(shown("a\"b"), r#""a\"b""#);
    assert_eq!(shown(&"x".repeat(1000)).len(), MAX_SHOWN + 5);
}
