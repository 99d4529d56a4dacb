from nova_pipelines_tests.web.site import site as site
