// Chat templates against what real Jinja2 renders: tests/data/local/chat_templates.json, made by tools/goldens.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "backends/local/chat/chat_template.hpp"

namespace ganglion::local {
namespace {

using jinja::Kind;
using jinja::Value;

const Value& at(const Value& object, std::string_view key) {
  const Value* found = object.as_dict().find(key);
  if (found == nullptr) throw std::out_of_range(std::string{key});
  return *found;
}

const Value& goldens() {
  static const Value kGoldens = [] {
    std::ifstream in(GANGLION_SOURCE_DIR "/tests/data/local/chat_templates.json");
    std::stringstream text;
    text << in.rdbuf();
    auto parsed = jinja::parse_json(text.str());
    if (!parsed) throw std::runtime_error(parsed.error().message);
    return *parsed;
  }();
  return kGoldens;
}

RenderInput input_for(const Value& the_case) {
  const Value& all = goldens();
  RenderInput input;
  input.messages = at(at(all, "conversations"), at(the_case, "conversation").as_string());
  if (at(the_case, "tools").as_bool()) input.tools = at(all, "tools");
  input.add_generation_prompt = at(the_case, "add_generation_prompt").as_bool();
  input.bos_token = at(at(all, "specials"), "bos_token").as_string();
  input.eos_token = at(at(all, "specials"), "eos_token").as_string();
  if (const Value* thinking = the_case.as_dict().find("enable_thinking")) {
    input.extra.emplace_back("enable_thinking", *thinking);
  }
  // now_utc is 2024-07-26T14:05:09.
  input.now = std::chrono::sys_days{std::chrono::year{2024} / 7 / 26} + std::chrono::hours{14} +
              std::chrono::minutes{5} + std::chrono::seconds{9};
  return input;
}

void expect_same(const core::Result<std::string>& got, const Value& the_case, const std::string& what) {
  if (const Value* output = the_case.as_dict().find("output")) {
    ASSERT_TRUE(got) << what << ": " << got.error().message;
    EXPECT_EQ(*got, output->as_string()) << what;
    return;
  }
  ASSERT_FALSE(got) << what << " should fail with " << at(the_case, "error").as_string() << ", gave " << *got;
  EXPECT_EQ(got.error().kind, core::ErrorKind::invalid_value) << what;
  EXPECT_EQ(got.error().param, "messages") << what;
  // The words of raise_exception are part of the contract; Python's own are not.
  if (at(the_case, "error_type").as_string() == "TemplateError") {
    EXPECT_EQ(got.error().message, at(the_case, "error").as_string()) << what;
  }
}

TEST(ChatGolden, RendersEveryTemplateAsJinja2Does) {
  ASSERT_EQ(at(goldens(), "now_utc").as_string(), "2024-07-26T14:05:09");
  std::map<std::string, ChatTemplate> compiled;
  for (const auto& [name, source] : at(goldens(), "templates").as_dict().entries) {
    auto made = ChatTemplate::compile(source.as_string());
    ASSERT_TRUE(made) << name.as_string() << ": " << made.error().message;
    compiled.emplace(name.as_string(), std::move(*made));
  }
  EXPECT_GE(compiled.size(), 8U);
  std::size_t outputs = 0;
  std::size_t raised = 0;
  for (const Value& one : at(goldens(), "cases").as_list().items) {
    const std::string& name = at(one, "template").as_string();
    expect_same(
        compiled.at(name).render(input_for(one)), one,
        name + " with " + at(one, "conversation").as_string() + (at(one, "tools").as_bool() ? " and tools" : ""));
    (one.as_dict().find("output") != nullptr ? outputs : raised) += 1;
  }
  EXPECT_GT(outputs, 100U);
  EXPECT_GT(raised, 10U);
}

TEST(ChatGolden, EvaluatesEverySnippetAsJinja2Does) {
  std::size_t count = 0;
  for (const Value& one : at(goldens(), "snippets").as_list().items) {
    const std::string& source = at(one, "template").as_string();
    auto compiled = ChatTemplate::compile(source);
    const Value* type = one.as_dict().find("error_type");
    const bool refused = type != nullptr &&
                         (type->as_string() == "TemplateSyntaxError" || type->as_string() == "TemplateAssertionError");
    if (refused) {
      EXPECT_FALSE(compiled) << source;
      continue;
    }
    // Of the rest, only what Jinja2 fails at too when it is reached may be refused at load.
    if (!compiled && type != nullptr) continue;
    if (!compiled) {
      // What no published template was seen to use is refused by name; anything else must work.
      EXPECT_EQ(compiled.error().kind, core::ErrorKind::unsupported) << source;
      EXPECT_THAT(compiled.error().message,
                  testing::ContainsRegex("line 1: .*(slice|recursive|varargs|groupby|urlencode).* is not supported"))
          << source;
      continue;
    }
    expect_same(compiled->render(input_for(at(goldens(), "snippets_context"))), one, source);
    ++count;
  }
  EXPECT_GT(count, 80U);
}

}  // namespace
}  // namespace ganglion::local
