// What goldens cannot show: refusals at load with name and line, bounds at render, finding a folder's templates.

#include "backends/local/chat/chat_template.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace ganglion::local {
namespace {

using jinja::Value;
using testing::HasSubstr;

core::Result<std::string> render(const std::string& source, RenderInput input = {}) {
  auto compiled = ChatTemplate::compile(source);
  if (!compiled) return std::unexpected(compiled.error());
  return compiled->render(input);
}

Value json(const std::string& text) {
  auto parsed = jinja::parse_json(text);
  if (!parsed) throw std::runtime_error(parsed.error().message);
  return *parsed;
}

TEST(ChatTemplate, RefusesUnsupportedConstructsByNameAndLine) {
  const std::pair<std::string, std::string> cases[] = {
      {"a\n\n{% include 'x' %}", "line 3: statement 'include'"},
      {"{% block b %}{% endblock %}", "line 1: statement 'block'"},
      {"{% do x.append(1) %}", "statement 'do'"},
      {"\n{{ x | frobnicate }}", "line 2: filter 'frobnicate'"},
      {"{{ x | indent(depth=2) }}", "filter 'indent' with argument 'depth'"},
      {"{{ x is frobnicated }}", "test 'frobnicated'"},
      {"{{ frobnicate(1) }}", "function 'frobnicate'"},
      {"{{ x.frobnicate() }}", "method 'frobnicate'"},
      {"{{ f(*x) }}", "unpacking arguments"},
      {"{% for x in y recursive %}{% endfor %}", "a recursive for loop"},
      {"{% macro m() %}{{ kwargs }}{% endmacro %}", "'kwargs' in a macro"},
      {"{{ self.x }}", "'self'"},
  };
  for (const auto& [source, what] : cases) {
    const auto compiled = ChatTemplate::compile(source);
    ASSERT_FALSE(compiled) << source;
    EXPECT_EQ(compiled.error().kind, core::ErrorKind::unsupported) << source << ": " << compiled.error().message;
    EXPECT_THAT(compiled.error().message, HasSubstr(what)) << source;
    EXPECT_THAT(compiled.error().message, HasSubstr("is not supported")) << source;
  }
}

TEST(ChatTemplate, RefusesBrokenSyntaxWithItsLine) {
  const std::pair<std::string, std::string> cases[] = {
      {"{% if x %}", "line 1: 'if' is not closed"},
      {"\n\n{% for x in y %}{% if z %}{% endfor %}", "line 3: unexpected 'endfor'"},
      {"{{ 'abc }}", "a string is not closed"},
      {"{{ x ", "a tag is not closed"},
      {"{# x", "a comment is not closed"},
      {"{% raw %} x", "a raw block is not closed"},
      {"{{ (1 }}", "unexpected '}'"},
      {"{{ 1 + }}", "expected an expression, got '}}'"},
      {"{% break %}", "'break' outside of a loop"},
      {"{% set true = 1 %}", "cannot assign to 'true'"},
      {"{{ x is divisibleby }}", "test 'divisibleby' takes 1 arguments"},
      {"{{ 1 2 }}", "expected '}}', got '2'"},
      {"{% endif %}", "unexpected 'endif'"},
      {"{{ 99999999999999999999 }}", "out of range"},
  };
  for (const auto& [source, what] : cases) {
    const auto compiled = ChatTemplate::compile(source);
    ASSERT_FALSE(compiled) << source;
    EXPECT_EQ(compiled.error().kind, core::ErrorKind::invalid_value) << source;
    EXPECT_THAT(compiled.error().message, HasSubstr(what)) << source;
  }
}

TEST(ChatTemplate, DeepNestingIsRefusedNotOverflowed) {
  const auto times = [](int n, const std::string& s) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  for (const std::string& source :
       {"{{ " + times(100'000, "(") + " }}", "{{ " + times(50'000, "not ") + "x }}",
        "{{ " + times(100'000, "-") + "1 }}", times(10'000, "{% if x %}"), "{{ 1" + times(100'000, " + 1") + " }}",
        "{{ x" + times(100'000, "|trim") + " }}", "{{ x" + times(100'000, "[0]") + " }}",
        "{% set " + times(100'000, "(") + " = 1 %}", "{{ " + times(50'000, "1 if x else ") + "2 }}"}) {
    EXPECT_FALSE(ChatTemplate::compile(source)) << source.substr(0, 40);
  }
}

TEST(ChatTemplate, RunsWithinItsBounds) {
  RenderInput small;
  small.limits = {.steps_max = 10'000, .output_bytes_max = 10'000, .work_bytes_max = 1'000'000};
  const std::pair<std::string, std::string> cases[] = {
      {"{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}", "runs for too long"},
      {"{% for a in range(500) %}0123456789012345678901234567890{% endfor %}", "the prompt is too large"},
      {"{{ 'x' * 1000000000 }}", "too large"},
      {"{{ ([1] * 9999) * 9999 }}", "too large"},
      {"{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "too"},
      {"{% set ns = namespace(s='0123456789' * 900) %}{% for i in range(900) %}{% set ns.s = ns.s | upper %}{% endfor "
       "%}",
       "too much memory"},
      {"{{ range(10000000) }}", "range too big"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion too deep"},
      {"{% set ns = namespace(x=[]) %}{% for i in range(500) %}{% set ns.x = [ns.x] %}{% endfor %}", "nest too deeply"},
      {"{% set ns = namespace() %}{% set ns.me = [ns] %}", "cannot hold a namespace"},
      {"{{ 9223372036854775807 + 1 }}", "integer too large"},
      {"{{ -9223372036854775807 - 2 }}", "integer too large"},
      {"{{ 7 ** 100 }}", "integer too large"},
      {"{{ 1 // 0 }}", "division by zero"},
  };
  for (const auto& [source, what] : cases) {
    const auto rendered = render(source, small);
    ASSERT_FALSE(rendered) << source;
    EXPECT_EQ(rendered.error().kind, core::ErrorKind::invalid_value) << source;
    EXPECT_THAT(rendered.error().message, HasSubstr(what)) << source;
  }
  EXPECT_EQ(render("{{ 1 ** 9223372036854775807 }} {{ (-1) ** 3 }} {{ 0 ** 5 }}").value(), "1 -1 0");
}

TEST(ChatTemplate, SortsValuesWithoutAnOrderSafely) {
  RenderInput input;
  input.messages = json(R"([[1, "a"], ["b", 1], [2], [1, 2], ["a"], [1, "b"], [3, 4], ["c", "d"], [0], [1]])");
  EXPECT_FALSE(render("{{ messages | sort }}", input));
  // NaN has no place in any order; what counts is that every value comes out again.
  EXPECT_EQ(render("{{ ([2, 1, 3] * 20 + ['nan' | float] * 20) | sort | length }}", input).value_or("failed"), "80");
}

TEST(ChatTemplate, ErrorsNameTheirLineAndRaisedOnesAreWordForWord) {
  const auto failed = render("{% if true %}\n\n{{ messages.x.y }}{% endif %}");
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("line 3: "));
  const auto raised = render("{{ raise_exception('Only user and assistant roles!') }}");
  ASSERT_FALSE(raised);
  EXPECT_EQ(raised.error().message, "Only user and assistant roles!");
  EXPECT_EQ(raised.error().param, "messages");
}

TEST(ChatTemplate, KnowsWhichVariablesItReads) {
  const auto compiled = ChatTemplate::compile("{% if tools %}{% for t in tools %}{{ t.name }}{% endfor %}{% endif %}");
  ASSERT_TRUE(compiled);
  EXPECT_TRUE(compiled->mentions("tools"));
  EXPECT_FALSE(compiled->mentions("name"));
  EXPECT_FALSE(compiled->mentions("messages"));
}

TEST(ChatTemplate, OneTemplateServesManyThreads) {
  const auto compiled = ChatTemplate::compile(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.v %}{% endfor %}{{ ns.n }}");
  ASSERT_TRUE(compiled);
  std::vector<std::thread> threads;
  std::vector<std::string> results(4);
  for (std::size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        RenderInput input;
        input.messages = json("[{\"v\": " + std::to_string(t) + "}, {\"v\": 10}]");
        results[t] = compiled->render(input).value_or("failed");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(results, testing::ElementsAre("10", "11", "12", "13"));
}

TEST(ChatJson, KeepsOrderAndRefusesWhatIsNotJson) {
  const Value v = json(R"({"b": 1, "a": [1.0, 1e300, true, null, "\u00e9\n"], "b": 2})");
  EXPECT_EQ(jinja::dump_json(v, {}).value(), R"({"b": 2, "a": [1.0, 1e+300, true, null, "é\n"]})");
  EXPECT_EQ(jinja::dump_json(v, {.ensure_ascii = true}).value(),
            R"({"b": 2, "a": [1.0, 1e+300, true, null, "\u00e9\n"]})");
  EXPECT_FALSE(jinja::parse_json("{\"a\": }"));
  EXPECT_FALSE(jinja::parse_json(""));
  EXPECT_FALSE(jinja::parse_json(std::string(200, '[') + std::string(200, ']')));
  EXPECT_FALSE(jinja::dump_json(Value{}, {}));
}

class ChatFolder : public testing::Test {
 protected:
  ChatFolder() : dir_(std::filesystem::temp_directory_path() / ("ganglion_chat_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~ChatFolder() override { std::filesystem::remove_all(dir_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(dir_ / name) << text; }
  std::string rendered(bool tools) {
    auto format = load_chat_template(dir_);
    if (!format) return format.error().message;
    if (!*format) return "no template";
    return (*format)->for_tools(tools).render({}).value_or("failed");
  }
  std::filesystem::path dir_;
};

TEST_F(ChatFolder, HasNoTemplateOrOneOrSeveral) {
  EXPECT_EQ(rendered(false), "no template");
  write("tokenizer_config.json", R"({"chat_template": "plain", "bos_token": {"content": "<s>"}, "eos_token": "</s>"})");
  EXPECT_EQ(rendered(false), "plain");
  EXPECT_EQ(rendered(true), "plain");
  const auto format = load_chat_template(dir_);
  EXPECT_THAT((*format)->special_tokens,
              testing::ElementsAre(testing::Pair("bos_token", "<s>"), testing::Pair("eos_token", "</s>")));
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "one"},
      {"name": "rag", "template": "{% include 'unused' %}"}, {"name": "tool_use", "template": "two"}]})");
  EXPECT_EQ(rendered(false), "one");
  EXPECT_EQ(rendered(true), "two");
  write("chat_template.jinja", "from the file");
  EXPECT_EQ(rendered(false), "from the file");
}

TEST_F(ChatFolder, NamesTheFileAtFault) {
  write("tokenizer_config.json", R"({"chat_template": "a\n{{ x | nope }}"})");
  EXPECT_THAT(rendered(false), testing::ContainsRegex("tokenizer_config.json: chat template, line 2: filter 'nope'"));
  write("tokenizer_config.json", "{");
  EXPECT_THAT(rendered(false), HasSubstr("tokenizer_config.json: not valid JSON"));
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(rendered(false), HasSubstr("must be a string or a list"));
}

}  // namespace
}  // namespace ganglion::local
