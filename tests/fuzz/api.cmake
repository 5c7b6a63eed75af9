# Codecs and the cache key. Run one by hand: build/fuzz/tests/fuzz/fuzz_sse tests/fuzz/corpus/sse -max_total_time=60
ganglion_fuzz(sse SOURCE fuzz_sse.cpp DEPS api cache)
ganglion_fuzz(openai_request SOURCE fuzz_openai_request.cpp DEPS api cache)
ganglion_fuzz(openai_stream SOURCE fuzz_openai_stream.cpp DEPS api cache)
ganglion_fuzz(cache_key SOURCE fuzz_cache_key.cpp DEPS api cache)
