# The CUDA device layer beside the CPU's: kernels (.cu, nvcc), device objects and the model that runs on them. Part of
# the build only with GANGLION_CUDA.
add_library(ganglion_local_cuda_kernels STATIC
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/adapters.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/attention_append.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/attention_decode.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/attention_encode.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/attention_prefill.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/encoder.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/experts.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/experts_tiles.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/pack.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/product.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/product_eight_bit.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/product_stream.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/rows.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/rows_general.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/sample.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/step.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/step_fp8.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/step_int4.cu
  ${CMAKE_CURRENT_LIST_DIR}/kernels/cuda/step_int8.cu)
set_target_properties(ganglion_local_cuda_kernels PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
target_include_directories(ganglion_local_cuda_kernels PRIVATE ${CMAKE_CURRENT_LIST_DIR}/../..)
target_compile_options(ganglion_local_cuda_kernels PRIVATE ${GANGLION_CUDA_OPTIONS})
target_link_libraries(ganglion_local_cuda_kernels PUBLIC CUDA::cudart_static)

ganglion_library(local_cuda SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/device/arena.cpp
  ${CMAKE_CURRENT_LIST_DIR}/device/blas.cpp
  ${CMAKE_CURRENT_LIST_DIR}/device/collective.cpp
  ${CMAKE_CURRENT_LIST_DIR}/device/devices.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_adapters.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_bert.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_decoder.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_general.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_layers.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_products.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_ranks.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_whole_step.cpp
  ${CMAKE_CURRENT_LIST_DIR}/models/cuda/cuda_weights.cpp
  DEPS core local_weights local_models
  LINK ganglion_local_cuda_kernels)
target_include_directories(ganglion_local_cuda SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
target_compile_definitions(ganglion_local_cuda PUBLIC GANGLION_CUDA)
