// See metering/rollup_store.hpp.

#include "metering/rollup_store.hpp"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>

#include "core/private_files.hpp"
#include "metering/record_codec.hpp"

namespace ganglion::metering {
namespace {

constexpr int kApplicationId = 0x676C6772;  // tells our files from others: "glgr"
constexpr int kSchemaVersion = 1;
constexpr std::size_t kKnownMax = 100'000;

constexpr const char* kSchema = R"(
  CREATE TABLE ledger (only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL, position INTEGER NOT NULL);
  CREATE TABLE dimensions (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, gateway TEXT NOT NULL, model TEXT NOT NULL,
    tier INTEGER NOT NULL, schedule TEXT NOT NULL, usd_pico_per_neuron INTEGER NOT NULL, tags BLOB NOT NULL,
    UNIQUE (tenant, key, gateway, model, tier, schedule, usd_pico_per_neuron, tags));
  CREATE TABLE hourly (
    hour INTEGER NOT NULL, dimension INTEGER NOT NULL REFERENCES dimensions(id),
    records INTEGER NOT NULL, cache_hits INTEGER NOT NULL, estimated INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    requests INTEGER NOT NULL, gpu_us INTEGER NOT NULL, llm_responses INTEGER NOT NULL,
    image_classifications INTEGER NOT NULL, embeddings INTEGER NOT NULL, parts BLOB NOT NULL,
    PRIMARY KEY (hour, dimension)) WITHOUT ROWID;
)";

// 128-bit sums are 16 bytes, most significant first: exact, and readable by any program.
using PartsBytes = std::array<std::uint8_t, 16>;

PartsBytes to_bytes(NeuronParts parts) {
  PartsBytes out{};
  for (std::size_t i = out.size(); i-- > 0; parts >>= 8) out[i] = static_cast<std::uint8_t>(parts);
  return out;
}

bool from_bytes(std::span<const std::uint8_t> bytes, NeuronParts& out) {
  if (bytes.size() != sizeof(PartsBytes)) return false;
  out = 0;
  for (const std::uint8_t byte : bytes) out = out << 8 | byte;
  return true;
}

bool parts_of(sqlite3_value* value, NeuronParts& out) {
  const auto* const bytes = static_cast<const std::uint8_t*>(sqlite3_value_blob(value));
  return from_bytes({bytes, static_cast<std::size_t>(sqlite3_value_bytes(value))}, out);
}

void return_parts(sqlite3_context* context, NeuronParts parts) {
  const PartsBytes bytes = to_bytes(parts);
  sqlite3_result_blob(context, bytes.data(), static_cast<int>(bytes.size()), SQLITE_TRANSIENT);
}

// parts_add(a, b)
void parts_add(sqlite3_context* context, int /*count*/, sqlite3_value** values) {
  NeuronParts a = 0;
  NeuronParts b = 0;
  if (!parts_of(values[0], a) || !parts_of(values[1], b) || __builtin_add_overflow(a, b, &a))
    sqlite3_result_error(context, "neuron parts do not fit 128 bits", -1);
  else
    return_parts(context, a);
}

// Lies where SQLite puts it, aligned to 8 bytes only: 128 bits are copied in and out. All zero at first.
struct Sum {
  std::array<std::uint64_t, 2> halves;
  bool bad;

  NeuronParts parts() const { return std::bit_cast<NeuronParts>(halves); }
};
static_assert(alignof(Sum) <= 8);

// parts_sum(a), an aggregate
void parts_sum_step(sqlite3_context* context, int /*count*/, sqlite3_value** values) {
  auto* const sum = static_cast<Sum*>(sqlite3_aggregate_context(context, sizeof(Sum)));
  NeuronParts parts = 0;
  if (sum == nullptr) return;
  if (!parts_of(values[0], parts) || __builtin_add_overflow(sum->parts(), parts, &parts))
    sum->bad = true;
  else
    sum->halves = std::bit_cast<std::array<std::uint64_t, 2>>(parts);
}

void parts_sum_end(sqlite3_context* context) {
  const auto* const sum = static_cast<const Sum*>(sqlite3_aggregate_context(context, 0));
  if (sum != nullptr && sum->bad)
    sqlite3_result_error(context, "neuron parts do not fit 128 bits", -1);
  else
    return_parts(context, sum == nullptr ? 0 : sum->parts());
}

void encode_tags(std::string& out, const api::Tags& tags) {
  Encoder to{out};
  for (const api::Tag& tag : tags) {
    to.text(tag.name);
    to.number(static_cast<std::uint64_t>(tag.type));
    to.text(tag.value);
  }
}

api::Tags decode_tags(std::span<const std::uint8_t> bytes) {
  Decoder in{{reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
  api::Tags tags;
  while (in.ok() && in.left() > 0) {
    api::Tag tag;
    tag.name = in.text();
    tag.type = static_cast<api::TagType>(in.number());
    tag.value = in.text();
    if (in.ok()) tags.push_back(std::move(tag));
  }
  return tags;
}

void encode_dimensions(std::string& out, const UsageDimensions& d) {
  Encoder to{out};
  for (const std::string* text : {&d.tenant, &d.key_id, &d.gateway, &d.model, &d.schedule}) to.text(*text);
  to.number(static_cast<std::uint64_t>(d.tier));
  to.number(d.usd_pico_per_neuron);
  encode_tags(out, d.tags);
}

std::span<const std::uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace

std::string rollups_path(const std::string& directory) {
  return directory + "/rollups.db";
}

void RollupBatch::add(const LedgerRecord& record) {
  Slice slice{.hour = hour_of(record), .dimensions = dimensions_of(record)};
  key_.clear();
  Encoder{key_}.number(static_cast<std::uint64_t>(slice.hour));
  encode_dimensions(key_, slice.dimensions);
  auto& held = slices_.try_emplace(key_, std::move(slice)).first->second;
  fits_ = held.counts.add(counts_of(record)) && fits_;
}

void RollupBatch::clear() {
  slices_.clear();
  fits_ = true;
}

core::Result<std::unique_ptr<RollupStore>> RollupStore::open(const std::string& directory, const std::string& ledger_id,
                                                             Between between) {
  core::make_private_database(rollups_path(directory));
  auto database = Database::open(rollups_path(directory), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  if (!database) return std::unexpected(database.error());
  std::unique_ptr<RollupStore> store{new RollupStore{std::move(*database)}};
  store->between_ = std::move(between);
  // FULL: retention trusts the position, so a commit has to survive a power loss.
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"})
    if (auto done = store->database_.run(pragma); !done) return std::unexpected(done.error());
  if (auto done = store->check_or_make(ledger_id); !done) return std::unexpected(done.error());
  if (auto done = store->prepare(); !done) return std::unexpected(done.error());
  return store;
}

core::Result<std::unique_ptr<RollupStore>> RollupStore::open_to_read(const std::string& directory) {
  const std::string path = rollups_path(directory);
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return nullptr;
  auto database = Database::open(path, SQLITE_OPEN_READWRITE);
  if (database && ::access(directory.c_str(), W_OK) != 0)  // a copy on read-only storage; nobody writes it
    database = Database::open("file:" + path + "?immutable=1", SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
  if (!database) return std::unexpected(database.error());
  std::unique_ptr<RollupStore> store{new RollupStore{std::move(*database)}};
  if (auto done = store->check_or_make({}); !done) return std::unexpected(done.error());
  if (store->ledger_id_.empty()) return nullptr;  // whoever began to make it was killed
  return store;
}

// With an empty id nothing is made and any ledger's file will do.
core::Result<void> RollupStore::check_or_make(const std::string& ledger_id) {
  const auto foreign = [](const std::string& why) {
    return core::fail(core::ErrorKind::ledger_unavailable, "rollups.db " + why + ". Nothing was changed.");
  };
  sqlite3_create_function(database_.raw(), "parts_add", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, nullptr, &parts_add,
                          nullptr, nullptr);
  sqlite3_create_function(database_.raw(), "parts_sum", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, nullptr, nullptr,
                          &parts_sum_step, &parts_sum_end);
  const auto application = database_.integer("PRAGMA application_id");
  if (!application) return std::unexpected(application.error());
  const auto version = database_.integer("PRAGMA user_version");
  if (!version) return std::unexpected(version.error());
  if (*application == 0 && *version == 0) {
    const auto tables = database_.integer("SELECT count(*) FROM sqlite_schema");
    if (!tables) return std::unexpected(tables.error());
    if (*tables != 0) return foreign("is a database of another program");
    if (ledger_id.empty()) return {};
    const std::string sql = "BEGIN IMMEDIATE;" + std::string{kSchema} + "INSERT INTO ledger VALUES (1, '" + ledger_id +
                            "', 0); PRAGMA application_id=" + std::to_string(kApplicationId) +
                            "; PRAGMA user_version=" + std::to_string(kSchemaVersion) + "; COMMIT;";
    reached("make");
    if (auto made = database_.run(sql.c_str()); !made) return made;
  } else if (*application != kApplicationId) {
    return foreign("is a database of another program");
  } else if (*version > kSchemaVersion) {
    return foreign("was written by a newer version of ganglion");
  }
  auto id = database_.prepare("SELECT id FROM ledger");
  if (!id) return std::unexpected(id.error());
  if (id->step() != SQLITE_ROW) return foreign("names no ledger");
  ledger_id_ = id->text(0);
  if (!ledger_id.empty() && ledger_id_ != ledger_id)
    return foreign("holds the usage of the ledger " + ledger_id_ + ", not of " + ledger_id +
                   "; put back what belongs together");
  return {};
}

core::Result<void> RollupStore::prepare() {
  const std::pair<Statement*, const char*> all[] = {
      {&find_,
       "SELECT id FROM dimensions WHERE tenant=? AND key=? AND gateway=? AND model=? AND tier=? AND schedule=? AND "
       "usd_pico_per_neuron=? AND tags=?"},
      {&insert_,
       "INSERT INTO dimensions (tenant, key, gateway, model, tier, schedule, usd_pico_per_neuron, tags) VALUES "
       "(?,?,?,?,?,?,?,?)"},
      {&add_,
       "INSERT INTO hourly VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET "
       "records=records+excluded.records,"
       "cache_hits=cache_hits+excluded.cache_hits, estimated=estimated+excluded.estimated,"
       "input_tokens=input_tokens+excluded.input_tokens,"
       "cached_input_tokens=cached_input_tokens+excluded.cached_input_tokens,"
       "output_tokens=output_tokens+excluded.output_tokens, requests=requests+excluded.requests,"
       "gpu_us=gpu_us+excluded.gpu_us, llm_responses=llm_responses+excluded.llm_responses,"
       "image_classifications=image_classifications+excluded.image_classifications,"
       "embeddings=embeddings+excluded.embeddings, parts=parts_add(parts, excluded.parts)"},
      {&advance_, "UPDATE ledger SET position=?"}};
  for (const auto& [statement, sql] : all) {
    auto prepared = database_.prepare(sql);
    if (!prepared) return std::unexpected(prepared.error());
    *statement = std::move(*prepared);
  }
  return {};
}

core::Result<std::uint64_t> RollupStore::position() {
  const auto position = database_.integer("SELECT position FROM ledger");
  if (!position) return std::unexpected(position.error());
  return static_cast<std::uint64_t>(*position);
}

core::Result<std::int64_t> RollupStore::dimension(const UsageDimensions& d) {
  std::string key;
  encode_dimensions(key, d);
  if (const auto found = known_.find(key); found != known_.end()) return found->second;
  std::string tags;
  encode_tags(tags, d.tags);
  const auto bind = [&](Statement& statement) {
    statement.reset();
    statement.bind(1, d.tenant);
    statement.bind(2, d.key_id);
    statement.bind(3, d.gateway);
    statement.bind(4, d.model);
    statement.bind(5, static_cast<std::int64_t>(d.tier));
    statement.bind(6, d.schedule);
    statement.bind(7, static_cast<std::int64_t>(d.usd_pico_per_neuron));
    statement.bind_blob(8, as_bytes(tags.empty() ? std::string_view{""} : std::string_view{tags}));
  };
  bind(find_);
  int code = find_.step();
  std::int64_t id = 0;
  if (code == SQLITE_ROW) {
    id = find_.integer(0);
  } else if (code == SQLITE_DONE) {
    bind(insert_);
    if (insert_.step() != SQLITE_DONE) {
      auto failed = database_.error("cannot write");
      insert_.reset();
      return failed;
    }
    id = sqlite3_last_insert_rowid(database_.raw());
    insert_.reset();
  } else {
    auto failed = database_.error("cannot read");
    find_.reset();
    return failed;
  }
  find_.reset();
  if (known_.size() >= kKnownMax) known_.clear();
  known_.emplace(std::move(key), id);
  return id;
}

core::Result<void> RollupStore::apply_slices(const RollupBatch& batch, std::uint64_t position) {
  for (const auto& [key, slice] : batch.slices_) {
    const auto id = dimension(slice.dimensions);
    if (!id) return std::unexpected(id.error());
    reached("dimension");
    const UsageCounts& counts = slice.counts;
    const Units& units = counts.units;
    add_.reset();
    add_.bind(1, slice.hour);
    add_.bind(2, *id);
    int at = 3;
    for (const std::uint64_t count : {counts.records, counts.cache_hits, counts.estimated, units.input_tokens,
                                      units.cached_input_tokens, units.output_tokens, units.requests, units.gpu_us,
                                      units.llm_responses, units.image_classifications, units.embeddings})
      add_.bind(at++, static_cast<std::int64_t>(count));
    const PartsBytes parts = to_bytes(counts.exact);
    add_.bind_blob(at, parts);
    if (add_.step() != SQLITE_DONE) {
      auto failed = database_.error("cannot write");
      add_.reset();
      return failed;
    }
    add_.reset();
    reached("slice");
  }
  advance_.reset();
  advance_.bind(1, static_cast<std::int64_t>(position));
  const int code = advance_.step();
  auto failed = database_.error("cannot write");
  advance_.reset();
  if (code != SQLITE_DONE) return failed;
  reached("position");
  return {};
}

core::Result<void> RollupStore::apply(const RollupBatch& batch, std::uint64_t position) {
  if (!batch.fits()) return core::fail(core::ErrorKind::internal, "the sum of neurons does not fit 128 bits");
  if (auto begun = database_.run("BEGIN IMMEDIATE"); !begun) return begun;
  reached("begin");
  const auto roll_back = [this] {
    known_.clear();  // ids that were just made are gone with the transaction
    [[maybe_unused]] const auto back = database_.run("ROLLBACK");
  };
  core::Result<void> done;
  try {
    done = apply_slices(batch, position);
    if (done) done = database_.run("COMMIT");
  } catch (const std::bad_alloc&) {
    roll_back();
    throw;
  }
  if (!done) {
    roll_back();
    return done;
  }
  reached("commit");
  return {};
}

core::Result<std::unordered_map<std::int64_t, UsageDimensions>> RollupStore::dimensions() {
  auto rows = database_.prepare(
      "SELECT id, tenant, key, gateway, model, tier, schedule, usd_pico_per_neuron, tags FROM dimensions");
  if (!rows) return std::unexpected(rows.error());
  std::unordered_map<std::int64_t, UsageDimensions> out;
  int code = SQLITE_ROW;
  while ((code = rows->step()) == SQLITE_ROW) {
    out.emplace(rows->integer(0), UsageDimensions{.tenant = std::string{rows->text(1)},
                                                  .key_id = std::string{rows->text(2)},
                                                  .gateway = std::string{rows->text(3)},
                                                  .model = std::string{rows->text(4)},
                                                  .tier = rows->integer(5) == 1 ? api::Tier::fast : api::Tier::regular,
                                                  .schedule = std::string{rows->text(6)},
                                                  .usd_pico_per_neuron = static_cast<std::uint64_t>(rows->integer(7)),
                                                  .tags = decode_tags(rows->blob(8))});
  }
  if (code != SQLITE_DONE) return database_.error("cannot read");
  return out;
}

core::Result<std::uint64_t> RollupStore::read(const RollupRange& range, const Visitor& visit) {
  if (auto begun = database_.run("BEGIN"); !begun) return std::unexpected(begun.error());
  const auto read = [&]() -> core::Result<std::uint64_t> {
    const auto at = position();
    if (!at) return at;
    const auto known = dimensions();
    if (!known) return std::unexpected(known.error());
    const std::string step = range.by_hour ? "hour" : "hour / 24 * 24";
    auto rows = database_.prepare(
        "SELECT " + step +
        ", dimension, sum(records), sum(cache_hits), sum(estimated), sum(input_tokens), sum(cached_input_tokens),"
        " sum(output_tokens), sum(requests), sum(gpu_us), sum(llm_responses), sum(image_classifications),"
        " sum(embeddings), parts_sum(parts) FROM hourly WHERE hour >= ? AND hour < ? GROUP BY 1, 2");
    if (!rows) return std::unexpected(rows.error());
    rows->bind(1, range.hour_from);
    rows->bind(2, range.hour_to);
    int code = SQLITE_ROW;
    while ((code = rows->step()) == SQLITE_ROW) {
      UsageCounts counts;
      Units& units = counts.units;
      int column = 2;
      for (std::uint64_t* count : {&counts.records, &counts.cache_hits, &counts.estimated, &units.input_tokens,
                                   &units.cached_input_tokens, &units.output_tokens, &units.requests, &units.gpu_us,
                                   &units.llm_responses, &units.image_classifications, &units.embeddings})
        *count = static_cast<std::uint64_t>(rows->integer(column++));
      const auto dimension = known->find(rows->integer(1));
      if (dimension == known->end() || !from_bytes(rows->blob(column), counts.exact))
        return core::fail(core::ErrorKind::ledger_unavailable, "rollups.db is damaged: a row cannot be read");
      visit(rows->integer(0), dimension->second, counts);
    }
    if (code != SQLITE_DONE) return database_.error("cannot read");
    return at;
  }();
  [[maybe_unused]] const auto end = database_.run("COMMIT");
  return read;
}

}  // namespace ganglion::metering
