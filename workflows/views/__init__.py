"""The pages of workflows: one module a page or a part of one."""
