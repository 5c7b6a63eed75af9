# Chat templates. Run by hand: build/fuzz/tests/fuzz/fuzz_chat_template tests/fuzz/corpus/chat_template -max_total_time=60
if(TARGET ganglion_local_chat)
  ganglion_fuzz(chat_template SOURCE fuzz_chat_template.cpp DEPS local_chat)
endif()
