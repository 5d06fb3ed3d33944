"""The encoded blur kernel space (Tran et al., CVPR 2021), with its StyleGAN priors."""
